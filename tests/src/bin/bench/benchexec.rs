//! BenchExec's runexec, as PyPI has it.

/// Its words before its options: it needs a cgroup that was delegated to it.
pub(crate) const RUNEXEC: &str = "systemd-run --quiet --scope --slice=benchexec -p Delegate=yes \
    env PYTHONPATH=/payload/files/benchexec.whl python3 -m benchexec.runexecutor --quiet";
