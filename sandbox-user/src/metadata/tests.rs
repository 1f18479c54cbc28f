use std::fs;
use std::os::unix::net::UnixListener;
use std::time::Duration;

use super::*;
use crate::limits::{OnPidsLimit, OomScope, Source};
use crate::policy::{Setting, Warn};

const MINUTE: Duration = Duration::from_secs(60);

fn yaml(text: &str) -> Result<Metadata, MetadataError> {
    Metadata::parse(text, Format::Yaml, Path::new("a.yaml"))
}

fn json(text: &str) -> Result<Metadata, MetadataError> {
    Metadata::parse(text, Format::Json, Path::new("a.json"))
}

fn toml(text: &str) -> Result<Metadata, MetadataError> {
    Metadata::parse(text, Format::Toml, Path::new("a.toml"))
}

fn table(text: &str) -> Layer {
    yaml(&format!("sandbox: {{{text}}}"))
        .expect("accepted")
        .layer
}

/// What a person sees, one line a document.
fn refusals<T: std::fmt::Debug>(
    documents: &[&str],
    parse: impl Fn(&str) -> Result<T, MetadataError>,
) -> String {
    let say = |text: &&str| format!("{text:?}\n    {}", parse(text).expect_err(text));
    documents.iter().map(say).collect::<Vec<_>>().join("\n")
}

#[test]
fn the_three_formats_say_the_same() {
    let from_json = json(
        r#"{"id": "a-17", "steps": [1, {"memory": 2}], "sandbox": {"memory": "4GiB", "swap": 0, "cpus": 2, "pids": 200,
            "timeout": "1h", "cpu-time": "none", "grace": 10, "warn": "USR1@2m", "on-pids-limit": "deny",
            "oom": "process", "labels": {"exp": "chr20", "run": 3}, "thread-env": true}}"#,
    )
    .expect("JSON is accepted");
    let from_yaml = yaml(
        "id: a-17\nsteps: [1, {memory: 2}]\nsandbox:\n  memory: 4GiB\n  swap: 0\n  cpus: 2\n  pids: 200\n  timeout: 1h\n  \
         cpu-time: none\n  grace: 10\n  warn: USR1@2m\n  on-pids-limit: deny\n  oom: process\n  \
         labels: {exp: chr20, run: 3}\n  thread-env: true\n",
    )
    .expect("YAML is accepted");
    let from_toml = toml(
        "id = 'a-17'\nsteps = [1, {memory = 2}]\n[sandbox]\nmemory = '4GiB'\nswap = 0\ncpus = 2\npids = 200\ntimeout = '1h'\n\
         cpu_time = 'none'\ngrace = 10\nwarn = 'USR1@2m'\non_pids_limit = 'deny'\noom = 'process'\nthread_env = true\n\
         [sandbox.labels]\nexp = 'chr20'\nrun = 3\n",
    )
    .expect("TOML is accepted");

    assert_eq!(from_json.id.as_deref(), Some("a-17"));
    let Layer {
        source,
        limits,
        actions,
    } = &from_json.layer;
    assert_eq!(*source, Source::Metadata);
    assert_eq!(limits.memory_bytes, Some(Setting::Value(4 << 30)));
    assert_eq!(limits.swap_bytes, Some(Setting::Value(0)));
    assert_eq!(limits.cpus, Some(Setting::Value(2.0)));
    assert_eq!(limits.pids, Some(Setting::Value(200)));
    assert_eq!(limits.walltime, Some(Setting::Value(60 * MINUTE)));
    assert_eq!(limits.cputime, Some(Setting::Lifted));
    assert_eq!(actions.grace, Some(Duration::from_secs(10)));
    assert_eq!(
        actions.warn,
        Some(Setting::Value(Warn {
            signal: 10,
            before: 2 * MINUTE
        }))
    );
    assert_eq!(actions.on_pids_limit, Some(OnPidsLimit::Deny));
    assert_eq!(actions.oom, Some(OomScope::Process));
    assert_eq!(from_json.labels.get("run").map(String::as_str), Some("3"));
    assert_eq!(from_json.thread_env, Some(ThreadEnv::Set));

    for (other, path) in [(from_yaml, "a.yaml"), (from_toml, "a.toml")] {
        assert_eq!(
            other,
            Metadata {
                path: path.into(),
                ..from_json.clone()
            }
        );
    }
}

#[test]
fn every_alias_has_its_own_unit() {
    let memory = |text: &str| table(text).limits.memory_bytes;
    assert_eq!(
        memory("memory_limit_mb: 64"),
        Some(Setting::Value(64 << 20))
    );
    assert_eq!(memory("mem_mb: 64"), Some(Setting::Value(64_000_000)));
    assert_eq!(memory("mem_mib: 0.5"), Some(Setting::Value(1 << 19)));
    let cpus = |text: &str| table(text).limits.cpus;
    assert_eq!(cpus("cpu_quota: 150%"), Some(Setting::Value(1.5)));
    assert_eq!(cpus("threads: 4"), Some(Setting::Value(4.0)));
    assert_eq!(table("pids_limit: 7").limits.pids, Some(Setting::Value(7)));
    let timeout = |text: &str| table(text).limits.walltime;
    assert_eq!(
        timeout("timeout_seconds: 90"),
        Some(Setting::Value(90 * MINUTE / 60))
    );
    assert_eq!(timeout("runtime: 90"), Some(Setting::Value(90 * MINUTE)));
    assert_eq!(timeout("time: 2 h"), Some(Setting::Value(120 * MINUTE)));
    assert_eq!(
        timeout("time: 1day"),
        Some(Setting::Value(24 * 60 * MINUTE))
    );
    assert_eq!(
        timeout("time: 1d 3h"),
        Some(Setting::Value(27 * 60 * MINUTE))
    );
}

#[test]
fn the_rest_of_a_document_is_left_alone_whatever_it_holds() {
    let accepted = [
        yaml(
            "big: 99999999999999999999999999999999\nnan: .nan\nself: &s [*s]\n!Ref x: !Sub ${y}\n? [a, b]\n: c\n1: 2\n~: 3\n\
             twice: 1\ntwice: 2\nint: !!int abc\nbin: !!binary '***'\nsandbox: {pids: 9}\nwhen: 2024-01-01\n",
        ),
        yaml("---\n# comment\nsandbox:\n  pids: 9 # nine\n...\n"),
        json(
            r#"{"big": 1e999, "twice": 1, "twice": 2, "lone": "\ud800", "\ud800": 1, "deep": [[[[]]]], "sand\u0062ox": {"pids": 9}}"#,
        ),
        json(&format!(
            r#"{{"deep": {}1{}, "sandbox": {{"pids": 9}}}}"#,
            "[".repeat(100_000),
            "]".repeat(100_000)
        )),
        toml(
            "when = 2024-01-01T00:00:00Z\nbig = [1e300, inf, nan]\nsandbox.pids = 0b1001\n[[step]]\n[[step]]\n",
        ),
        json("\u{feff}{\"sandbox\": {\"pids\": 9}}"),
    ];
    for metadata in accepted {
        let metadata = metadata.expect("accepted");
        assert_eq!(metadata.layer.limits.pids, Some(Setting::Value(9)));
    }
}

#[test]
fn a_document_may_say_nothing() {
    for metadata in [
        yaml(""),
        yaml("# nothing\n"),
        yaml("a: 1"),
        yaml("sandbox: {}"),
        json("{}"),
        toml(""),
    ] {
        let metadata = metadata.expect("accepted");
        assert_eq!(
            metadata.layer.limits,
            crate::policy::LimitOverrides::default()
        );
        assert_eq!(metadata.id, None);
    }
    assert_eq!(json(r#"{"id": null}"#).expect("accepted").id, None);
}

#[test]
fn an_id_keeps_its_spelling() {
    for (text, id) in [
        ("17", "17"),
        ("007", "007"),
        ("1_000", "1_000"),
        ("'1e3'", "1e3"),
        ("2024-01-01", "2024-01-01"),
        ("!!str 17", "17"),
        ("! 17", "17"),
        ("!!int 17", "17"),
    ] {
        let metadata = yaml(&format!("id: {text}")).expect("accepted");
        assert_eq!(metadata.id.as_deref(), Some(id));
    }
    let big = "123456789012345678901234567890";
    assert_eq!(
        json(&format!(r#"{{"id": {big}}}"#))
            .expect("accepted")
            .id
            .as_deref(),
        Some(big)
    );
}

#[test]
fn yaml_aliases_and_merge_keys_are_followed_in_the_table() {
    let metadata = yaml(
        "base: &base {memory: 1G, pids: 5, timeout: &t 10m}\nmore: &more {pids: 6, swap: 1G}\n\
         sandbox:\n  <<: [*base, *more]\n  memory: 2G\n  cpu-time: *t\n",
    )
    .expect("accepted");
    let limits = metadata.layer.limits;
    assert_eq!(
        limits.memory_bytes,
        Some(Setting::Value(2 << 30)),
        "its own key wins"
    );
    assert_eq!(
        limits.pids,
        Some(Setting::Value(5)),
        "the earlier of the merged wins"
    );
    assert_eq!(limits.swap_bytes, Some(Setting::Value(1 << 30)));
    assert_eq!(limits.cputime, Some(Setting::Value(10 * MINUTE)));
}

#[test]
fn a_mistake_is_told_with_its_line_and_key() {
    let in_table = |text: &str| yaml(&format!("x: 1\nsandbox:\n  pids: 5\n  {text}\n"));
    insta::assert_snapshot!(refusals(
        &[
            "memroy: 4GiB",
            "mem: 4GiB",
            "walltime: 1h",
            "Memory: 4GiB",
            "frobnicate: 1",
            "\"\\e[31m\": 1",
            "user: root",
            "env: {A: b}",
            "record: /tmp/x",
            "on_complete: rm -rf /",
            "id: a",
            "attempt: 2",
            "memory: 4GX",
            "memory: !size 4GiB",
            "memory: 0",
            "memory: 12",
            "memory: 1.5",
            "memory: -1",
            "memory: true",
            "memory: null",
            "memory: [1]",
            "memory: {max: 1G}",
            "memory: 18446744073709551615",
            "memory: 1e400",
            "memory: ''",
            "memory: \"1G\\e[31m\"",
            "cpus: .nan",
            "cpus: .inf",
            "cpus: 0",
            "cpus: -2",
            "cpus: 150%",
            "cpu_quota: 150",
            "cpu_quota: 0%",
            "pids_limit: 6",
            "pids: 6",
            "memory: 1G\n  mem_mb: 1000",
            "mem_mb: 4GB",
            "mem_mib: none",
            "mem_mb: 0",
            "memory_limit_mb: 99999999999999999999",
            "timeout_seconds: 1h",
            "timeout_seconds: 0",
            "runtime: 2h",
            "time: 90",
            "time: 01:30:00",
            "timeout: 1h30",
            "grace: none",
            "warn: USR1",
            "warn: KILL@2m",
            "oom: yes",
            "oom: all",
            "on-pids-limit: 1",
            "thread-env: 1",
            "cpu-time: 1h\n  cpu_time: 1h",
            "labels: [a, b]",
            "labels: {a: 1.5}",
            "labels: {a: no}",
            "labels: {a: 1, a: 2}",
            "labels: {\"a=b\": 1}",
            "labels: {a: {b: {c: 1}}}",
            "label: {a: 1}",
            "[1]: 2",
        ],
        in_table
    ));
}

#[test]
fn mistakes_in_json_and_toml_are_told_as_well() {
    let in_json = refusals(
        &[
            "",
            "[]",
            "{\"sandbox\": {\n  \"memory\": \"4GiB\",\n  \"memory\": \"5GiB\"}}",
            "{\"sandbox\": {\n  \"memory\": \"4GiB\",\n  \"memroy\": 1}}",
            "{\"sandbox\": {\"memory\": }}",
            "{\"sandbox\": {\"memory\": NaN}}",
            "{\"sandbox\": 5}",
            "{\"sandbox\": {}, \"sandbox\": {}}",
            "{\"sandbox\": {\"labels\": {\"a\": \"\\ud800\"}}}",
            "{\"id\": 1.5}",
            "{\"id\": \"\"}",
            "{\"id\": \"a\\u001bb\"}",
            "{\"id\": []}",
            "{} {}",
            "{\"sandbox\": {\"cpus\": 1e-5}}",
            "{\"sandbox\": {\"pids\": -0}}",
        ],
        json,
    );
    let in_toml = refusals(
        &[
            "sandbox = 5",
            "[sandbox]\nmemory = 1\nmemory = 2",
            "[sandbox]\nmemory = 4GiB",
            "[sandbox]\nmemroy = '4GiB'",
            "[sandbox]\ncpus = nan",
            "[sandbox]\npids = 0x",
            "[sandbox]\ntimeout = 01:30:00",
            "[sandbox.memory]\nmax = '1G'",
        ],
        toml,
    );
    insta::assert_snapshot!(format!("{in_json}\n{in_toml}"));
}

#[test]
fn yaml_that_is_none_is_told_where() {
    insta::assert_snapshot!(refusals(
        &[
            "- a\n- b",
            "text",
            "a: 1\n---\nb: 2",
            "sandbox:\n\tmemory: 1G",
            "sandbox: {memory: 1G",
            "sandbox: *nobody",
            "sandbox: &a\n  <<: *a",
            "sandbox: [1]",
            "sandbox:",
            "sandbox: {<<: 5}",
            "id: yes",
            "id: 0x1F",
            "a: \"unclosed",
        ],
        yaml
    ));
}

#[test]
fn documents_that_expand_without_end_are_refused_or_cost_nothing() {
    let mut bomb = "a0: &a0 [x, x]\n".to_owned();
    for level in 1..60 {
        let below = level - 1;
        bomb += &format!("a{level}: &a{level} [*a{below}, *a{below}, *a{below}]\n");
    }
    assert!(
        yaml(&format!("{bomb}sandbox: {{pids: 5}}")).is_ok(),
        "outside the table it is not followed"
    );

    let mut merges = "b0: &b0 {pids: 5}\n".to_owned();
    for level in 1..10 {
        let below = level - 1;
        let sources = format!("*b{below},").repeat(50);
        merges += &format!("b{level}: &b{level} {{<<: [{sources}]}}\n");
    }
    let error = yaml(&format!("{merges}sandbox: *b9")).expect_err("too large");
    assert!(
        error.to_string().contains("larger than 10,000 keys"),
        "{error}"
    );

    for deep in [
        format!("a: {}", "[".repeat(100_000)),
        format!("a: {}", "{a: ".repeat(100_000)),
        (0..2_000)
            .map(|depth| format!("{}a:\n", " ".repeat(depth)))
            .collect(),
        "- ".repeat(100_000),
    ] {
        assert!(matches!(
            yaml(&deep),
            Err(MetadataError::Document(DocumentError::Syntax { .. }))
        ));
    }
    let nested = format!(
        "sandbox: {{labels: {}1{}}}",
        "{a: ".repeat(200),
        "}".repeat(200)
    );
    assert!(matches!(
        yaml(&nested),
        Err(MetadataError::Document(DocumentError::Key { .. }))
    ));
    let deep_toml = format!("a = {}", "[".repeat(100_000));
    assert!(matches!(
        toml(&deep_toml),
        Err(MetadataError::Document(DocumentError::Syntax { .. }))
    ));
    let long_key = format!("{}b = 1", "a.".repeat(100_000));
    assert!(matches!(
        toml(&long_key),
        Err(MetadataError::Document(DocumentError::Syntax { .. }))
    ));
    let deep_json = format!(r#"{{"sandbox": {}"#, r#"{"labels":"#.repeat(100_000));
    assert!(matches!(
        json(&deep_json),
        Err(MetadataError::Document(DocumentError::Syntax { .. }))
    ));
    let closed = format!("{}1{}", r#"{"labels":"#.repeat(50_000), "}".repeat(50_000));
    assert!(matches!(
        json(&format!(r#"{{"sandbox": {closed}}}"#)),
        Err(MetadataError::Document(DocumentError::Key { .. }))
    ));
}

#[test]
fn too_many_labels_are_refused() {
    let labels: Vec<String> = (0..65).map(|number| format!("l{number}: 1")).collect();
    let error =
        yaml(&format!("sandbox: {{labels: {{{}}}}}", labels.join(", "))).expect_err("too many");
    assert!(
        error
            .to_string()
            .contains("65 labels are too many, at most 64"),
        "{error}"
    );
}

#[test]
fn files_that_cannot_be_metadata_are_told_apart() {
    let directory = tempfile::tempdir().expect("a directory");
    let at = |name: &str| directory.path().join(name);
    fs::create_dir(at("dir.json")).expect("made");
    nix::unistd::mkfifo(&at("fifo.json"), nix::sys::stat::Mode::S_IRWXU).expect("made");
    let _socket = UnixListener::bind(at("socket.json")).expect("made");
    fs::write(at("a.txt"), "{}").expect("written");
    fs::write(at("none"), "{}").expect("written");
    fs::write(at("latin.yaml"), b"a: 1\nb: caf\xe9\n").expect("written");
    fs::write(at("utf16.json"), b"\xff\xfe{\0}\0").expect("written");
    fs::write(at("large.json"), " ".repeat(1 << 20) + "{}").expect("written");
    fs::write(at("good.YML"), "id: a").expect("written");
    let lines: Vec<String> = [
        "missing.json",
        "dir.json",
        "fifo.json",
        "socket.json",
        "a.txt",
        "none",
        "latin.yaml",
        "utf16.json",
        "large.json",
        "x\u{1b}[31m.json",
    ]
    .iter()
    .map(|name| {
        let error = Metadata::read(&at(name), None).expect_err(name).to_string();
        error.replace(&format!("{}/", directory.path().display()), "")
    })
    .collect();
    insta::assert_snapshot!(lines.join("\n"));
    assert_eq!(
        Metadata::read(&at("good.YML"), None)
            .expect("read")
            .id
            .as_deref(),
        Some("a")
    );
    let device = Metadata::read(Path::new("/dev/null"), None).expect_err("a device");
    assert!(matches!(
        device,
        MetadataError::Document(DocumentError::NotAFile {
            found: "a device",
            ..
        })
    ));
}
