//! The committed corpus, with a plain compiler: what the fuzzer starts from, and what it once found.

use std::path::{Path, PathBuf};

use sandbox::document::Format;
use sandbox::metadata::Metadata;
use sandbox::service::protocol::Request;
use sandbox::trace::decode_event;

fn corpus(target: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("corpus")
        .join(target);
    let listed = std::fs::read_dir(&folder).expect("the corpus is there");
    listed
        .map(|entry| entry.expect("listed").path())
        .map(|path| (path.clone(), std::fs::read(&path).expect("read")))
        .collect()
}

#[test]
fn the_corpus_breaks_no_target() {
    for (target, check) in [
        ("decoder", sandbox_fuzz::decoder as fn(&[u8])),
        ("metadata", sandbox_fuzz::metadata),
        ("config", sandbox_fuzz::config),
        ("protocol", sandbox_fuzz::protocol),
    ] {
        let files = corpus(target);
        assert!(!files.is_empty(), "{target} has nothing to start from");
        for (path, bytes) in files {
            println!("{}", path.display());
            check(&bytes);
        }
    }
}

#[test]
fn the_corpus_has_one_whole_event_of_every_kind() {
    let files = corpus("decoder");
    let seeds = sandbox_fuzz::decoder_seeds();
    assert!(seeds.len() >= 7, "{} kinds", seeds.len());
    for (name, bytes) in seeds {
        assert!(decode_event(&bytes).is_ok(), "{name}");
        let is_there = files
            .iter()
            .any(|(path, found)| path.ends_with(&name) && *found == bytes);
        assert!(
            is_there,
            "{name} is not as the events are laid out: run `cargo run -p sandbox-fuzz --example seeds`"
        );
    }
}

#[test]
fn the_corpus_has_requests_that_are_understood() {
    let files = corpus("protocol");
    let understood = files
        .iter()
        .filter(|(_, line)| Request::parse(line).is_ok());
    assert!(understood.count() >= 8);
}

#[test]
fn the_corpus_has_metadata_that_is_accepted_in_every_format() {
    let files = corpus("metadata");
    for format in [Format::Json, Format::Yaml, Format::Toml] {
        let accepted = files.iter().filter(|(path, bytes)| {
            let text = std::str::from_utf8(bytes).unwrap_or_default();
            Format::of(path) == Some(format)
                && Metadata::parse(text, format, path).is_ok_and(|metadata| metadata.id.is_some())
        });
        assert!(accepted.count() >= 2, "{format}");
    }
}
