//! A plain cgroup, whose limits are those that a run of `sandbox` is given beside it.

use std::fs;
use std::path::Path;

/// Makes it with limits on memory, PIDs and CPU, as its files have them, and without swap.
pub(crate) fn make(folder: &Path, [memory, pids, cpu]: [&str; 3]) {
    fs::create_dir(folder).expect("the guest has cgroup v2");
    for (file, limit) in [
        ("memory.max", memory),
        ("memory.swap.max", "0"),
        ("pids.max", pids),
        ("cpu.max", cpu),
    ] {
        // The guest has no swap, and the kernel may have none of its file.
        let written = fs::write(folder.join(file), limit);
        assert!(
            written.is_ok() || file == "memory.swap.max",
            "{file}: {written:?}"
        );
    }
}
