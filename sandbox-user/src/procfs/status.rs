//! Fields of /proc/PID/status (proc_pid_status(5)).

/// What stands behind `name:`, without the space around it; `None` where this kernel has no such field.
pub fn status_field<'a>(status: &'a str, name: &str) -> Option<&'a str> {
    status.lines().find_map(|line| {
        let value = line.strip_prefix(name)?.strip_prefix(':')?;
        Some(value.trim())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_is_found_by_its_whole_name() {
        let status = "Uid:\t1\t1\nSigIgnored:\tno\nSigIgn:\t0f\n";
        assert_eq!(status_field(status, "SigIgn"), Some("0f"));
        assert_eq!(status_field(status, "Uid"), Some("1\t1"));
        assert_eq!(status_field(status, "Gid"), None);
    }
}
