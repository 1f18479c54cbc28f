use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::identity::{Account, Change};
use crate::limits::{Limits, Source};
use crate::policy::{Ceiling, Ceilings, Excess, LimitOverrides, LimitedCallers, Setting, settle};

const GIB: u64 = 1 << 30;

/// On a host that has enough.
fn config(text: &str) -> Config {
    let mut config = Config::parse(text, Path::new("config.toml")).expect("accepted");
    config.budget.memory_share_bytes = SHARE;
    config
}

const SHARE: Option<u64> = Some(64 * GIB);

/// A host with two groups and another name of ana's, that does not know the other users.
struct Groups;

impl Accounts for Groups {
    fn by_name(&self, name: &str) -> Result<Option<Account>, String> {
        Ok((name == "also-ana").then(|| Account {
            uid: 1000,
            gid: 1000,
            name: name.to_owned(),
            home: "/".into(),
        }))
    }

    fn by_uid(&self, _uid: u32) -> Result<Option<Account>, String> {
        Ok(None)
    }

    fn groups(&self, _account: &Account) -> Result<Vec<u32>, String> {
        Ok(Vec::new())
    }

    fn group(&self, name: &str) -> Result<Option<u32>, String> {
        match name {
            "students" => Ok(Some(100)),
            "staff" => Ok(Some(200)),
            "broken" => Err("LDAP is down".to_owned()),
            _ => Ok(None),
        }
    }
}

fn who(name: &str, uid: u32, groups: &[u32]) -> Identity {
    Identity {
        uid,
        gid: uid,
        groups: groups.to_vec(),
        name: Some(name.to_owned()),
        home: None,
        change: Change::Changed,
    }
}

/// The limits of a run that asks for nothing.
fn limits(config: &Config, who: &Identity) -> Limits {
    let policy = config.policy_for(Some(who), &Groups).expect("looked up");
    let settled = settle(&policy.defaults, &policy.ceilings).expect("nothing was asked for");
    settled.limits
}

#[test]
fn the_built_in_default_of_memory_is_no_more_than_all_runs_may_have() {
    let default = |text| {
        let policy = config(text).policy_for(None, &Groups);
        let layers = policy.expect("nobody is looked up").defaults;
        let settled = settle(&layers, &Ceilings::default()).expect("within all ceilings");
        settled.limits.memory_bytes.value
    };
    assert_eq!(default("[budget]\nmemory = '1GiB'"), Some(GIB));
    assert_eq!(default("[budget]\nmemory = '3GiB'"), Some(2 * GIB));
    assert_eq!(
        default("[budget]\nmemory = '1GiB'\n[defaults]\nmemory = '512MiB'"),
        Some(GIB / 2)
    );
}

#[test]
fn a_memory_budget_can_go_by_what_the_host_has() {
    let config = config("[budget]\nmemory = 'auto'\npids = 9\n");
    let total = crate::cgroup::Proc::default().memory_total_bytes();
    let share = crate::policy::share_of(total.expect("this host has memory"));
    assert_eq!(config.budget.memory_bytes, Some(Setting::Value(share)));
    let silent = Config::parse("", Path::new("config.toml")).expect("accepted");
    assert_eq!(silent.budget.memory_bytes, None);
    let keep = Config::parse("[budget]\nmemory = 'keep'\n", Path::new("config.toml"));
    assert_eq!(keep.expect("accepted").budget, Budget::default());
    assert_eq!(silent.budget.memory_share_bytes, Some(share));
    assert_eq!(config.budget.pids, Some(Setting::Value(9)));
}

#[test]
fn the_example_of_the_readme_is_accepted() {
    let readme = include_str!("../../../README.md");
    let (_, rest) = readme.split_once("```toml\n").expect("it has an example");
    let (example, _) = rest.split_once("```").expect("that ends");
    let config = config(example);
    assert_eq!(config.user.as_deref(), Some("analysis"));
    assert!(!config.groups.is_empty() && !config.users.is_empty());
    assert_ne!(config.budget, Budget::default());
    assert_ne!(config.rules.ceilings, Ceilings::default());
    assert_ne!(config.rules.defaults.limits, LimitOverrides::default());
    assert_ne!(config.service, ServiceConfig::default());
}

#[test]
fn an_empty_file_says_nothing() {
    let empty = config("");
    assert_eq!(limits(&empty, &who("ana", 1000, &[])), Limits::default());
    assert_eq!(empty.user, None);
    assert_eq!(empty.service, ServiceConfig::default());
}

#[test]
fn a_ceiling_says_what_becomes_of_more_or_its_table_does() {
    let ceilings = config(
        "[ceilings]\nmemory = '8GiB'\ncpus = {at-most = 4, otherwise = 'refuse'}\n\
         timeout = {at_most = '1d'}\npids = 'none'\ngrace = 60\notherwise = 'cap'\n",
    )
    .rules
    .ceilings;
    let expected = Ceilings {
        memory_bytes: Some(Ceiling {
            at_most: Setting::Value(8 * GIB),
            otherwise: None,
        }),
        cpus: Some(Ceiling {
            at_most: Setting::Value(4.0),
            otherwise: Some(Excess::Refuse),
        }),
        walltime: Some(Ceiling {
            at_most: Setting::Value(Duration::from_secs(86_400)),
            otherwise: None,
        }),
        pids: Some(Ceiling {
            at_most: Setting::Lifted,
            otherwise: None,
        }),
        grace: Some(Ceiling {
            at_most: Setting::Value(Duration::from_secs(60)),
            otherwise: None,
        }),
        otherwise: Some(Excess::Cap),
        ..Ceilings::default()
    };
    assert_eq!(ceilings, expected);
}

#[test]
fn the_budget_is_everybodys_and_says_nothing_of_what_is_not_in_it() {
    let config = config("[budget]\nmemory = '24GiB'\npids = 'none'\n");
    let expected = Budget {
        memory_bytes: Some(Setting::Value(24 * GIB)),
        memory_share_bytes: SHARE,
        pids: Some(Setting::Lifted),
        ..Budget::default()
    };
    for who in [None, Some(&who("ana", 1000, &[]))] {
        let policy = config.policy_for(who, &Groups).expect("looked up");
        assert_eq!(policy.budget, expected);
    }
}

#[test]
fn users_go_before_groups_and_later_groups_before_earlier_ones() {
    let config = config(
        "[defaults]\nmemory = '1GiB'\npids = 50\n\
         [groups.students.defaults]\nmemory = '2GiB'\ncpus = 2\n\
         [groups.staff.defaults]\nmemory = '4GiB'\n\
         [groups.nobody-has-it.defaults]\nmemory = '64GiB'\n\
         [users.ana.defaults]\nmemory = '8GiB'\n\
         [users.1002.defaults]\nmemory = '16GiB'\n",
    );
    let memory = |name, uid, groups: &[u32]| {
        let limits = limits(&config, &who(name, uid, groups));
        assert_eq!(limits.pids.value, Some(50));
        assert_eq!(limits.memory_bytes.source, Source::Host);
        limits.memory_bytes.value.map(|bytes| bytes / GIB)
    };
    assert_eq!(memory("eve", 1001, &[]), Some(1));
    assert_eq!(memory("eve", 1001, &[100]), Some(2));
    assert_eq!(memory("eve", 1001, &[200, 100]), Some(4));
    assert_eq!(memory("eve", 100, &[]), Some(2), "the primary group counts");
    assert_eq!(memory("ana", 1000, &[200]), Some(8));
    assert_eq!(memory("bob", 1002, &[]), Some(16));
    let student = limits(&config, &who("eve", 1001, &[100, 200]));
    assert_eq!(student.cpus.value, Some(2.0), "limit by limit");
}

#[test]
fn who_is_not_known_gets_what_everybody_gets() {
    let config = config("[defaults]\npids = 50\n[users.ana.defaults]\npids = 70\n");
    let policy = config
        .policy_for(None, &Groups)
        .expect("nothing to look up");
    assert_eq!(policy.defaults, [config.rules.defaults]);
}

#[test]
fn a_group_that_cannot_be_looked_up_is_no_reason_to_go_without_its_rules() {
    let config = config("[groups.broken.ceilings]\nmemory = '1GiB'\n");
    let error = config
        .policy_for(Some(&who("ana", 1000, &[])), &Groups)
        .expect_err("nobody can tell")
        .to_string();
    assert!(
        error.contains("broken") && error.contains("LDAP is down"),
        "{error}"
    );
}

#[test]
fn a_user_is_known_by_any_of_their_names() {
    let config = config("[users.also-ana.defaults]\npids = 70\n");
    assert_eq!(limits(&config, &who("ana", 1000, &[])).pids.value, Some(70));
    assert_eq!(
        limits(&config, &who("also-ana", 1001, &[])).pids.value,
        Some(100),
        "another with that name, say in a container, is not meant"
    );
}

#[test]
fn whom_the_host_does_not_know_is_named() {
    let config = config(
        "user = 'nobody-there'\n[users.also-ana]\n[users.1234]\n[users.anna]\n[groups.students]\n[groups.studnets]\n",
    );
    assert_eq!(
        config.strangers(&Groups).expect("looked up"),
        ["user `nobody-there`", "user `anna`", "group `studnets`"]
    );
}

#[test]
fn the_services_table_says_what_it_says_and_leaves_the_rest() {
    let read = |table: &str| config(&format!("[service]\n{table}")).service;
    let expected = ServiceConfig {
        runs: Some(16),
        runs_per_user: Some(4),
        queue: 0,
        queue_per_user: 7,
        limited_callers: LimitedCallers::Allow,
        metadata_paths: Some(vec!["/data/meta".into(), "/".into()]),
        metrics: Some(([127, 0, 0, 1], 9464).into()),
        keep_runs: Some(Duration::from_secs(90 * 86_400)),
        keep_bytes: Some(10 * GIB),
        log_bytes: 1 << 20,
        events_bytes: 64 << 10,
    };
    let all = "runs = 16\nruns_per_user = '4'\nqueue = 0\nqueue-per-user = 7\nlimited-callers = 'allow'\n\
        metadata-paths = ['/data//./meta/', '/']\nmetrics = '127.0.0.1:9464'\nkeep-runs = '90d'\n\
        keep-bytes = '10GiB'\nlog-bytes = '1MiB'\nevents-bytes = '64KiB'\n";
    assert_eq!(read(all), expected);

    let none = "runs = 'none'\nruns-per-user = 'none'\nkeep-runs = 'none'\nkeep-bytes = 'none'\n";
    assert_eq!(read(none), ServiceConfig::default());
    assert_eq!(read("events-bytes = 0").events_bytes, 0);

    let some = ServiceConfig {
        metrics: Some(([0, 0, 0, 0, 0, 0, 0, 1], 1).into()),
        metadata_paths: Some(Vec::new()),
        ..ServiceConfig::default()
    };
    assert_eq!(read("metrics = '[::1]:1'\nmetadata-paths = []\n"), some);
}

#[test]
fn how_many_runs_a_user_has_at_once_is_said_by_user_group_or_service() {
    let config = config(
        "[service]\nruns-per-user = 4\n[groups.students]\nruns = 2\n[groups.staff]\nruns = 'none'\n\
         [groups.staff.defaults]\npids = 50\n[users.1002]\nruns = 9\n",
    );
    let runs = |uid, groups: &[u32]| {
        let policy = config.policy_for(Some(&who("eve", uid, groups)), &Groups);
        policy.expect("looked up").runs
    };
    assert_eq!(runs(1001, &[]), Some(4));
    assert_eq!(runs(1001, &[100]), Some(2));
    assert_eq!(runs(1001, &[100, 200]), None);
    assert_eq!(runs(1002, &[100, 200]), Some(9));
}

#[test]
fn metadata_paths_bind_everybody_that_the_policy_is_for() {
    let config = config("[service]\nmetadata-paths = ['/data']\n");
    for who in [None, Some(&who("ana", 1000, &[]))] {
        let policy = config.policy_for(who, &Groups).expect("looked up");
        assert_eq!(policy.metadata_paths, Some(vec!["/data".into()]));
    }
}

#[test]
fn a_mistake_is_told_with_its_line_and_key() {
    let documents = [
        "memory = '4GiB'",
        "[default]\nmemory = '4GiB'",
        "[defaults]\nmemroy = '4GiB'",
        "[defaults]\nmem_mb = 4",
        "[defaults]\nlabels = {a = 'b'}",
        "[defaults]\nmemory = '4GX'",
        "[defaults]\ncpu-time = '1h'\ncpu_time = '2h'",
        "defaults = 3",
        "[ceilings]\nwarn = 'USR1@2m'",
        "[ceilings]\nmemory = {at-most = '4GiB', other-wise = 'cap'}",
        "[ceilings]\nmemory = {otherwise = 'cap'}",
        "[ceilings]\nmemory = {at-most = [1]}",
        "[ceilings]\nmemory = true",
        "[ceilings]\ngrace = 'none'",
        "[ceilings]\notherwise = 'lower'",
        "[ceilings]\notherwise = 1",
        "user = 1000",
        "user = ''",
        "[users]\nana = '8GiB'",
        "[users.ana]\nmemory = '8GiB'",
        "[users.ana.ceilings]\nmemory = 0",
        "[users.\"a\\u001bb\"]",
        "[users.ana\n",
        "[users.ana]\n[users.ana]\n",
        "[budget]\ntimeout = '1h'",
        "[users.ana.budget]\nmemory = '1GiB'",
        "[users.ana]\nruns = 0",
        "[groups.students]\nruns-per-user = 2",
        "runs = 3",
        "service = 3",
        "[service]\nrun = 3",
        "[service]\ndetach = true",
        "[service]\nruns = 0",
        "[service]\nruns = 1.5",
        "[service]\nruns-per-user = 'unlimited'",
        "[service]\nruns-per-user = true",
        "[service]\nqueue = 'none'",
        "[service]\nqueue-per-user = -1",
        "[service]\nqueue = 5\n'queue' = 6",
        "[service]\nlimited-callers = 'cap'",
        "[service]\nlimited-callers = false",
        "[service]\nmetadata-paths = '/data'",
        "[service]\nmetadata-paths = ['/data',\n  'data']",
        "[service]\nmetadata-paths = ['/data/../etc']",
        "[service]\nmetadata-paths = [\n  '/data',\n  3,\n]",
        "[service]\nmetadata_paths = [['/data']]",
        "[service]\nmetrics = '0.0.0.0:9464'",
        "[service]\nmetrics = '[::]:9464'",
        "[service]\nmetrics = '[::ffff:127.0.0.1]:9464'",
        "[service]\nmetrics = '127.0.0.1'",
        "[service]\nmetrics = '127.0.0.1:0'",
        "[service]\nmetrics = 'localhost:9464'",
        "[service]\nmetrics = 9464",
        "[service]\nmetrics = ['127.0.0.1:9464']",
        "[service]\nkeep-runs = '10ms'",
        "[service]\nkeep-runs = '90 days ago'",
        "[service]\nkeep-bytes = '1KiB'",
        "[service]\nkeep-bytes = 2026-01-01",
        "[service]\nlog-bytes = 0",
        "[service]\nlog-bytes = 'none'",
        "[service]\nevents-bytes = '1KiB'",
        "[service]\nevents-bytes = 'none'",
    ];
    let said = documents.map(|text| {
        let error = Config::parse(text, Path::new("config.toml")).expect_err(text);
        format!("{text:?}\n    {error}")
    });
    insta::assert_snapshot!(said.join("\n"));
}

#[test]
fn a_file_that_is_not_there_is_no_configuration_and_one_of_others_is_refused() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("config.toml");
    assert_eq!(Config::read(&path).expect("nothing there"), None);
    let missing = directory.path().join("no/such/config.toml");
    assert_eq!(Config::read(&missing).expect("nothing there"), None);

    fs::write(&path, "[defaults]\npids = 50\n").expect("written");
    let readable = |mode| {
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("changed");
        Config::read(&path)
    };
    for mode in [0o664, 0o646, 0o622] {
        let error = readable(mode).expect_err("others can write it").to_string();
        assert!(error.contains("chmod go-w"), "{error}");
    }
    let read = readable(0o644);
    if nix::unistd::geteuid().is_root() {
        assert!(read.expect("root's own").is_some());
        let everybodys = fs::Permissions::from_mode(0o777);
        fs::set_permissions(directory.path(), everybodys).expect("changed");
        let error = readable(0o644)
            .expect_err("others can put another there")
            .to_string();
        assert!(error.contains("(mode 0777)"), "{error}");
        std::os::unix::fs::chown(&path, Some(1000), None).expect("root may");
    }
    let error = readable(0o644).expect_err("another's").to_string();
    assert!(error.contains("belongs to uid"), "{error}");

    let link = directory.path().join("link.toml");
    std::os::unix::fs::symlink(&missing, &link).expect("linked");
    let error = Config::read(&link)
        .expect_err("it leads nowhere")
        .to_string();
    assert!(error.contains("cannot read the configuration"), "{error}");

    let error = Config::read(directory.path()).expect_err("a directory");
    assert!(error.to_string().contains("regular file"), "{error}");
}

proptest! {
    #[test]
    fn no_text_makes_the_reader_panic(text in "(?s).{0,200}") {
        let _ = Config::parse(&text, Path::new("config.toml"));
    }

    #[test]
    fn nearly_right_text_is_a_configuration_or_an_error_in_one_line(
        parts in proptest::collection::vec(
            prop_oneof![
                Just("[defaults]\n"), Just("[ceilings]\n"), Just("[users.ana."), Just("[groups.x."), Just("defaults]\n"),
                Just("ceilings]\n"), Just("memory"), Just("timeout"), Just("otherwise"), Just("at-most"), Just(" = "),
                Just("'4GiB'"), Just("'cap'"), Just("{"), Just("}"), Just(", "), Just("\n"), Just("[["), Just("1"),
                Just("user"), Just("."), Just("[service]\n"), Just("runs"), Just("metadata-paths"), Just("["), Just("]"),
                Just("metrics"), Just("'/data'"), Just("'127.0.0.1:1'"), Just("'none'"), Just("é"),
            ],
            0..30,
        )
    ) {
        let text = parts.concat();
        if let Err(error) = Config::parse(&text, Path::new("config.toml")) {
            let said = error.to_string();
            prop_assert!(said.starts_with("config.toml"), "{said}");
            prop_assert!(!said.contains(crate::units::is_unprintable), "{said:?}");
        }
    }
}
