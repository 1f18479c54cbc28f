//! The store as who reads it with SQLite finds it, while the service goes on.

use std::collections::BTreeMap;
use std::process::Command;

use sandbox_tests::Service;
use serde_json::Value;

/// Prints the rows as JSON: run, state, reason, that of its record, whether it was accepted in this boot.
const QUERY: &str = r#"
import json, sqlite3, sys
store = sqlite3.connect(f"file:{sys.argv[1]}/runs.sqlite?mode=ro", uri=True)
assert store.execute("PRAGMA integrity_check").fetchone() == ("ok",)
boot = open("/proc/sys/kernel/random/boot_id").read().strip()
rows = store.execute("SELECT run_id, state, reason, record ->> '$.termination.reason', boot_id = ? FROM runs", (boot,))
print(json.dumps(rows.fetchall()))
"#;

/// All rows of the store.
pub(crate) struct Store(BTreeMap<String, Row>);

/// What is asked of a run.
#[derive(Debug)]
struct Row {
    state: String,
    reason: Option<String>,
    /// What its record says.
    recorded: Option<String>,
    of_this_boot: bool,
}

impl Store {
    /// Reads it.
    ///
    /// # Panics
    ///
    /// Where it is damaged.
    pub(crate) fn read() -> Self {
        let output = Command::new("python3")
            .args(["-c", QUERY, Service::STORE])
            .output()
            .expect("the guest has Python");
        assert!(output.status.success(), "{output:?}");
        let rows: Value = serde_json::from_slice(&output.stdout).expect("it prints JSON");
        let text = |value: &Value| value.as_str().map(str::to_owned);
        let rows = rows.as_array().expect("a list").iter().map(|row| {
            let found = Row {
                state: text(&row[1]).expect("each has one"),
                reason: text(&row[2]),
                recorded: text(&row[3]),
                of_this_boot: row[4] == 1,
            };
            (text(&row[0]).expect("each has an id"), found)
        });
        Self(rows.collect())
    }

    /// What is not as it has to be: runs that were told and are missing or told otherwise, and runs of an earlier
    /// boot that still go on.
    pub(crate) fn problems(&self, told: &str) -> Vec<String> {
        let told = told.lines().filter_map(|line| line.split_once(' '));
        let lost = told.filter_map(|(run_id, reason)| match self.0.get(run_id) {
            None => Some(format!("run {run_id} ({reason}) is lost")),
            Some(row)
                if [&row.reason, &row.recorded]
                    .iter()
                    .any(|it| it.as_deref() != Some(reason)) =>
            {
                Some(format!("run {run_id} was told as {reason}, and is {row:?}"))
            }
            Some(_) => None,
        });
        let going_on = self.0.iter().filter_map(|(run_id, row)| {
            let is_over = row.of_this_boot || row.state == "ended" && row.reason.is_some();
            (!is_over).then(|| format!("run {run_id} of an earlier boot is {row:?}"))
        });
        lost.chain(going_on).collect()
    }
}
