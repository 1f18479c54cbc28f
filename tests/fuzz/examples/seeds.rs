//! Writes the decoder's seeds into the corpus, after the events' layout changed.

use std::path::Path;

fn main() -> std::io::Result<()> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus/decoder");
    for (name, bytes) in sandbox_fuzz::decoder_seeds() {
        println!("{name}: {} bytes", bytes.len());
        std::fs::write(folder.join(name), bytes)?;
    }
    Ok(())
}
