//! What a configuration comes to, in a few lines for whoever wrote it: `sandbox serve --check-config`.

use std::fmt::{Display, Write as _};
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::process::Command;

use super::{Config, ConfigError, PATH, Rules, ServiceConfig};
use crate::identity::{Accounts, SystemAccounts};
use crate::limits::{OnPidsLimit, OomScope};
use crate::policy::{Budget, Ceiling, Ceilings, Excess, Layer, Setting};
use crate::record::signal_name;
use crate::units::{Printable, Quoted, format_bytes, format_cpus, format_duration};

/// Reads the host's configuration and says what it comes to.
///
/// # Errors
/// [`ConfigError`] where it is not to be gone by.
pub fn check() -> Result<String, ConfigError> {
    let config = Config::of_host()?;
    let (state, config) = match config {
        Some(config) => ("right", config),
        None => (
            "not there, so that the built-in defaults apply",
            Config::parse("", Path::new(PATH))?,
        ),
    };
    let mut text = format!("{PATH} is {state}\n");
    text.push_str(&summary(&config));
    for remark in remarks(&config, &SystemAccounts)? {
        line(&mut text, "but", remark);
    }
    Ok(text)
}

fn line(text: &mut String, what: &str, says: impl Display) {
    // Writing into a String cannot fail.
    let _ = writeln!(text, "{what:<13}{says}");
}

fn summary(config: &Config) -> String {
    let mut text = String::new();
    let Config {
        user,
        on_complete,
        budget,
        service,
        rules,
        groups,
        users,
    } = config;
    let user = user.as_deref().map_or_else(
        || "plain root has to say".to_owned(),
        |user| Quoted(user).to_string(),
    );
    line(&mut text, "user", user);
    let Rules {
        defaults: usual,
        ceilings: most,
        // `runs-per-user` of the service.
        runs: _,
    } = rules;
    line(
        &mut text,
        "defaults",
        listed(&defaults(usual), "the built-in ones"),
    );
    line(&mut text, "ceilings", listed(&ceilings(most), "none"));
    line(&mut text, "budget", listed(&budget_of(budget), "none"));
    let on_complete = on_complete.as_deref().unwrap_or("nothing");
    line(&mut text, "on-complete", Printable(on_complete).to_string());
    rules_of(&mut text, "groups", groups);
    rules_of(&mut text, "users", users);
    line(&mut text, "service", service_of(service).join(", "));
    text
}

/// What is right as it stands and yet most likely not meant.
fn remarks(config: &Config, accounts: &dyn Accounts) -> Result<Vec<String>, ConfigError> {
    let mut remarks: Vec<String> = config
        .strangers(accounts)?
        .into_iter()
        .map(|stranger| format!("this host does not know the {stranger}"))
        .collect();
    remarks.extend(config.on_complete.as_deref().and_then(hook_remark));
    for path in config.service.metadata_paths.iter().flatten() {
        let shown = Printable(&path.to_string_lossy()).to_string();
        match path.canonicalize() {
            Ok(resolved) if resolved != *path => remarks.push(format!(
                "no metadata is below {shown}, which leads to {}: write that in metadata-paths",
                Printable(&resolved.to_string_lossy())
            )),
            Ok(_) => {}
            Err(error) => remarks.push(format!("no metadata is below {shown}: {error}")),
        }
    }
    Ok(remarks)
}

/// What keeps a host's completion hook from being run at all, where its first word shows that.
fn hook_remark(command: &str) -> Option<String> {
    let word = command.split_whitespace().next()?;
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-+/".contains(&byte);
    if !word.bytes().all(is_plain) {
        // An assignment, a quote, a group: only a shell can tell.
        return None;
    }
    let why = if !word.contains('/') {
        // Its own words too.
        let mut sh = Command::new("/bin/sh");
        let found = sh.args(["-c", "command -v \"$1\" >/dev/null", "sh", word]);
        match found.status().ok()?.success() {
            true => return None,
            false => "there is no such program on the PATH".to_owned(),
        }
    } else if !word.starts_with('/') {
        "it is not absolute, and would be looked for below whatever directory a run is asked for in"
            .to_owned()
    } else {
        match fs::metadata(word) {
            Ok(file) if file.is_file() && file.mode() & 0o111 != 0 => return None,
            Ok(_) => "it cannot be executed".to_owned(),
            Err(error) => error.to_string(),
        }
    };
    Some(format!("on-complete will fail: {}: {why}", Quoted(word)))
}

fn listed(parts: &[String], otherwise: &str) -> String {
    if parts.is_empty() {
        otherwise.to_owned()
    } else {
        parts.join(", ")
    }
}

/// A line for each of them.
fn rules_of(text: &mut String, whose: &str, rules: &[(String, Rules)]) {
    if rules.is_empty() {
        line(text, whose, "none");
    }
    for (index, (name, rules)) in rules.iter().enumerate() {
        let whose = if index == 0 { whose } else { "" };
        let Rules {
            defaults: usual,
            ceilings: most,
            runs,
        } = rules;
        let parts = [
            ("defaults", defaults(usual)),
            ("ceilings", ceilings(most)),
            (
                "runs at once",
                runs.map(|runs| or_none(runs.into_option(), |runs| runs.to_string()))
                    .into_iter()
                    .collect(),
            ),
        ];
        let said: Vec<String> = parts
            .into_iter()
            .filter(|(_, parts)| !parts.is_empty())
            .map(|(what, parts)| format!("{what} {}", parts.join(", ")))
            .collect();
        let said = match said.is_empty() {
            true => "nothing".to_owned(),
            false => said.join("; "),
        };
        line(text, whose, format_args!("{}: {said}", Quoted(name)));
    }
}

fn or_none<T>(value: Option<T>, show: impl FnOnce(T) -> String) -> String {
    value.map_or_else(|| "none".to_owned(), show)
}

fn limit<T>(
    name: &str,
    said: Option<Setting<T>>,
    show: impl FnOnce(T) -> String,
) -> Option<String> {
    said.map(|setting| format!("{name} {}", or_none(setting.into_option(), show)))
}

fn defaults(layer: &Layer) -> Vec<String> {
    let Layer {
        source: _,
        limits,
        actions,
    } = layer;
    let grace = actions.grace.map(Setting::Value);
    let parts = [
        limit("memory", limits.memory_bytes, format_bytes),
        limit("swap", limits.swap_bytes, format_bytes),
        limit("cpus", limits.cpus, format_cpus),
        limit("pids", limits.pids, |pids| pids.to_string()),
        limit("timeout", limits.walltime, format_duration),
        limit("cpu-time", limits.cputime, format_duration),
        limit("grace", grace, format_duration),
        limit("warn", actions.warn, |warn| {
            let before = format_duration(warn.before);
            format!("{} {before} before the deadline", signal_name(warn.signal))
        }),
        actions.on_pids_limit.map(|denied| {
            let word = match denied {
                OnPidsLimit::Kill => "kill",
                OnPidsLimit::Deny => "deny",
            };
            format!("on-pids-limit {word}")
        }),
        actions.oom.map(|scope| {
            let word = match scope {
                OomScope::Whole => "whole",
                OomScope::Process => "process",
            };
            format!("oom {word}")
        }),
    ];
    parts.into_iter().flatten().collect()
}

fn ceilings(ceilings: &Ceilings) -> Vec<String> {
    let Ceilings {
        memory_bytes,
        swap_bytes,
        cpus,
        pids,
        walltime,
        cputime,
        grace,
        otherwise,
    } = ceilings;
    let all = otherwise.unwrap_or_default();
    let parts = [
        ceiling("memory", *memory_bytes, all, format_bytes),
        ceiling("swap", *swap_bytes, all, format_bytes),
        ceiling("cpus", *cpus, all, format_cpus),
        ceiling("pids", *pids, all, |pids| pids.to_string()),
        ceiling("timeout", *walltime, all, format_duration),
        ceiling("cpu-time", *cputime, all, format_duration),
        ceiling("grace", *grace, all, format_duration),
    ];
    parts.into_iter().flatten().collect()
}

fn ceiling<T: Copy>(
    name: &str,
    ceiling: Option<Ceiling<T>>,
    otherwise: Excess,
    show: impl FnOnce(T) -> String,
) -> Option<String> {
    let ceiling = ceiling?;
    let becomes = match ceiling.otherwise.unwrap_or(otherwise) {
        Excess::Refuse => "more is refused",
        Excess::Cap => "more is lowered",
    };
    let shown = limit(name, Some(ceiling.at_most), show)?;
    Some(match ceiling.at_most {
        Setting::Value(_) => format!("{shown} ({becomes})"),
        Setting::Lifted => shown,
    })
}

fn budget_of(budget: &Budget) -> Vec<String> {
    let Budget {
        memory_bytes,
        memory_share_bytes,
        swap_bytes,
        cpus,
        pids,
    } = budget;
    let share = memory_share_bytes
        .map(|bytes| format!("memory {} where it is not limited yet", format_bytes(bytes)));
    let parts = [
        limit("memory", *memory_bytes, format_bytes).or(share),
        limit("swap", *swap_bytes, format_bytes),
        limit("cpus", *cpus, format_cpus),
        limit("pids", *pids, |pids| pids.to_string()),
    ];
    parts.into_iter().flatten().collect()
}

fn service_of(service: &ServiceConfig) -> Vec<String> {
    let ServiceConfig {
        runs,
        runs_per_user,
        queue,
        queue_per_user,
        limited_callers,
        metadata_paths,
        metrics,
        keep_runs,
        keep_bytes,
        log_bytes,
        events_bytes,
    } = service;
    let count = |runs: usize| runs.to_string();
    let paths = metadata_paths.as_ref().map(|paths| {
        let paths: Vec<String> = paths
            .iter()
            .map(|path| Printable(&path.to_string_lossy()).to_string())
            .collect();
        match paths.is_empty() {
            true => "nowhere".to_owned(),
            false => paths.join(" or "),
        }
    });
    vec![
        format!("runs {}", or_none(*runs, count)),
        format!("runs-per-user {}", or_none(*runs_per_user, count)),
        format!("queue {queue}"),
        format!("queue-per-user {queue_per_user}"),
        format!("limited-callers {}", limited_callers.as_str()),
        format!(
            "metadata-paths {}",
            paths.unwrap_or_else(|| "anywhere".to_owned())
        ),
        format!("metrics {}", or_none(*metrics, |at| at.to_string())),
        format!("keep-runs {}", or_none(*keep_runs, format_duration)),
        format!("keep-bytes {}", or_none(*keep_bytes, format_bytes)),
        format!("log-bytes {}", format_bytes(*log_bytes)),
        format!("events-bytes {}", format_bytes(*events_bytes)),
    ]
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_configuration_is_summed_up_with_all_that_it_says() {
        let text = "user = 'analysis'\non-complete = 'tell-the-database'\n\
            [defaults]\nmemory = '4GiB'\nswap = 0\ncpus = 2\npids = 'none'\ntimeout = '1h'\ncpu-time = '2h'\n\
            grace = 0\nwarn = 'USR1@2m'\non-pids-limit = 'deny'\noom = 'process'\n\
            [ceilings]\nmemory = '32GiB'\ncpus = 'none'\ntimeout = {at-most = '1d', otherwise = 'cap'}\n\
            [budget]\nmemory = '48GiB'\n\
            [groups.students.ceilings]\nmemory = '8GiB'\n[groups.staff]\nruns = 'none'\n[users.ana]\nruns = 3\n\
            defaults = {timeout = '2h'}\nceilings = {memory = 'none', timeout = {at-most = '1d', otherwise = 'cap'}}\n\
            [users.bob.ceilings]\n\
            [service]\nruns = 16\nmetadata-paths = ['/srv/meta', '/data']\nlimited-callers = 'allow'\n\
            metrics = '[::1]:9464'\nkeep-runs = '90d'\nkeep-bytes = '10GiB'\n";
        let config = Config::parse(text, Path::new("config.toml")).expect("accepted");
        let mut empty = Config::parse("", Path::new("config.toml")).expect("accepted");
        empty.budget.memory_share_bytes = Some(7 << 30);
        let summaries = format!("{}\n{}", summary(&config), summary(&empty));
        insta::assert_snapshot!(summaries);
    }

    #[test]
    fn a_directory_that_leads_elsewhere_or_is_not_there_is_remarked_on() {
        let directory = tempfile::tempdir().expect("a directory");
        let root = directory.path().canonicalize().expect("it is there");
        std::fs::create_dir(root.join("real")).expect("made");
        std::os::unix::fs::symlink(root.join("real"), root.join("link")).expect("linked");
        let shown = root.display();
        let text = format!(
            "[service]\nmetadata-paths = ['{shown}/real', '{shown}/link', '{shown}/none']\n"
        );
        let config = Config::parse(&text, Path::new("config.toml")).expect("accepted");
        let remarks = remarks(&config, &SystemAccounts).expect("nobody to look up");
        let [leads, missing] = remarks.as_slice() else {
            panic!("two of three: {remarks:?}");
        };
        assert!(
            leads.contains(&format!("/link, which leads to {shown}/real:")),
            "{leads}"
        );
        assert!(missing.contains("/none: No such file"), "{missing}");
    }

    #[test]
    fn a_hook_that_cannot_be_run_is_remarked_on() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("tell");
        let named = path.to_string_lossy();
        let text = format!("on-complete = '{named} --all'\n");
        let config = Config::parse(&text, Path::new("config.toml")).expect("accepted");
        let remarks = remarks(&config, &SystemAccounts).expect("nobody to look up");
        let [missing] = remarks.as_slice() else {
            panic!("it is not there: {remarks:?}");
        };
        assert!(missing.contains("No such file"), "{missing}");
        fs::write(&path, "#!/bin/sh\n").expect("written");
        let plain = hook_remark(&named).expect("nobody may");
        assert!(plain.ends_with("it cannot be executed"), "{plain}");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("ours");
        for runs in [
            &*named,
            "cat >/dev/null",
            "exec cat",
            "A=1 tell",
            "'a b' c",
            "",
        ] {
            assert_eq!(hook_remark(runs), None, "{runs}");
        }
        let strange = hook_remark("no-such-program-anywhere x").expect("it is nowhere");
        assert!(strange.contains("no such program"), "{strange}");
        let relative = hook_remark("./tell").expect("who knows where");
        assert!(relative.contains("not absolute"), "{relative}");
    }
}
