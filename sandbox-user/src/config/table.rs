//! The configuration's tables, once the document is read.

mod service;

use std::collections::BTreeMap;

use super::{Config, Rules, ServiceConfig};
use crate::cgroup::{Proc, memory_limit_of_all_runs};
use crate::document::{Entry, Fault, Field, Problem, Seen, Value, like, normal, read, wrong_kind};
use crate::limits::Source;
use crate::policy::values::{ValueError, check_memory};
use crate::policy::{Budget, Ceiling, Ceilings, Excess, Layer, Setting, share_of};
use crate::spec::check_user;

use service::count_or_none;

/// Keys with what they stand for.
type Keys<T> = &'static [(&'static str, T)];

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Top {
    User,
    OnComplete,
    Budget,
    Defaults,
    Ceilings,
    Service,
    Groups,
    Users,
    /// Of a group or a user; everybody's is in the service's table.
    Runs,
}

const TOP: Keys<Top> = &[
    ("user", Top::User),
    ("on-complete", Top::OnComplete),
    ("budget", Top::Budget),
    ("defaults", Top::Defaults),
    ("ceilings", Top::Ceilings),
    ("service", Top::Service),
    ("groups", Top::Groups),
    ("users", Top::Users),
];

const RULES: Keys<Top> = &[
    ("defaults", Top::Defaults),
    ("ceilings", Top::Ceilings),
    ("runs", Top::Runs),
];

const DEFAULTS: Keys<Field> = &[
    ("memory", Field::Memory),
    ("swap", Field::Swap),
    ("cpus", Field::Cpus),
    ("pids", Field::Pids),
    ("timeout", Field::Timeout),
    ("cpu-time", Field::CpuTime),
    ("grace", Field::Grace),
    ("warn", Field::Warn),
    ("on-pids-limit", Field::OnPidsLimit),
    ("oom", Field::Oom),
];

const BUDGET: Keys<Field> = &[
    ("memory", Field::Memory),
    ("swap", Field::Swap),
    ("cpus", Field::Cpus),
    ("pids", Field::Pids),
];

/// What a ceiling is of; `None` is what becomes of more, where the limit itself does not say.
const CEILINGS: Keys<Option<Field>> = &[
    ("memory", Some(Field::Memory)),
    ("swap", Some(Field::Swap)),
    ("cpus", Some(Field::Cpus)),
    ("pids", Some(Field::Pids)),
    ("timeout", Some(Field::Timeout)),
    ("cpu-time", Some(Field::CpuTime)),
    ("grace", Some(Field::Grace)),
    ("otherwise", None),
];

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Part {
    AtMost,
    Otherwise,
}

const CEILING: Keys<Part> = &[("at-most", Part::AtMost), ("otherwise", Part::Otherwise)];

/// The configuration that the document's entries make.
pub(super) fn interpret(entries: &[Entry], text: &str) -> Result<Config, Fault> {
    let mut config = Config {
        user: None,
        on_complete: None,
        budget: Budget::default(),
        service: ServiceConfig::default(),
        rules: nothing(),
        groups: Vec::new(),
        users: Vec::new(),
    };
    let reader = Reader { text };
    let mut names_memory = false;
    reader.each(entries, "", TOP, |key, entry, path| {
        match key {
            Top::User => {
                let user = name(&entry.value).map_err(|problem| entry.fault(path, problem))?;
                config.user = Some(user);
            }
            Top::OnComplete => {
                let command =
                    command(&entry.value).map_err(|problem| entry.fault(path, problem))?;
                config.on_complete = Some(command);
            }
            Top::Budget => (config.budget, names_memory) = reader.budget(entry, path)?,
            Top::Defaults => config.rules.defaults = reader.defaults(entry, path)?,
            Top::Ceilings => config.rules.ceilings = reader.ceilings(entry, path)?,
            Top::Groups => config.groups = reader.by_name(entry, path)?,
            Top::Users => config.users = reader.by_name(entry, path)?,
            Top::Service => config.service = reader.service(entry, path)?,
            Top::Runs => {}
        }
        Ok(())
    })?;
    if !names_memory {
        let in_force = memory_limit_of_all_runs().ok().flatten();
        config.budget.memory_share_bytes = in_force.or_else(share);
    }
    Ok(config)
}

fn nothing() -> Rules {
    Rules {
        defaults: Layer::silent(Source::Host),
        ceilings: Ceilings::default(),
        runs: None,
    }
}

struct Reader<'a> {
    text: &'a str,
}

impl Reader<'_> {
    /// Hands each entry of a table out with what its key stands for and its full name.
    fn each<T: Copy + Ord>(
        &self,
        entries: &[Entry],
        within: &str,
        keys: Keys<T>,
        mut take: impl FnMut(T, &Entry, &str) -> Result<(), Fault>,
    ) -> Result<(), Fault> {
        let mut seen = Seen::new(self.text);
        for entry in entries {
            let path = join(within, &entry.key);
            let key = find(keys, &entry.key).map_err(|problem| entry.fault(&path, problem))?;
            seen.claim(key, entry)
                .map_err(|problem| entry.fault(&path, problem))?;
            take(key, entry, &path)?;
        }
        Ok(())
    }

    fn by_name(&self, table: &Entry, path: &str) -> Result<Vec<(String, Rules)>, Fault> {
        let mut all = Vec::new();
        for entry in table.table(path)? {
            let path = join(path, &entry.key);
            check_user(&entry.key).map_err(|error| entry.fault(&path, error.into()))?;
            let mut rules = nothing();
            self.each(entry.table(&path)?, &path, RULES, |key, entry, path| {
                match key {
                    Top::Defaults => rules.defaults = self.defaults(entry, path)?,
                    Top::Ceilings => rules.ceilings = self.ceilings(entry, path)?,
                    Top::Runs => {
                        let runs = count_or_none(&entry.value);
                        rules.runs = Some(runs.map_err(|problem| entry.fault(path, problem))?);
                    }
                    Top::User
                    | Top::OnComplete
                    | Top::Budget
                    | Top::Service
                    | Top::Groups
                    | Top::Users => {}
                }
                Ok(())
            })?;
            all.push((entry.key.clone(), rules));
        }
        Ok(all)
    }

    /// The budget, and whether it names memory.
    fn budget(&self, table: &Entry, path: &str) -> Result<(Budget, bool), Fault> {
        let mut layer = Layer::silent(Source::Host);
        let mut names_memory = false;
        self.each(table.table(path)?, path, BUDGET, |field, entry, path| {
            let is_memory = field == Field::Memory;
            names_memory |= is_memory;
            let is = |word: &str| is_memory && entry.value == Value::Text(word.to_owned());
            let set = if is("auto") {
                let auto = |_: &str| check_memory(share().unwrap_or(0));
                read(&entry.value, "\"auto\"", auto)
                    .map(|bytes| layer.limits.memory_bytes = Some(Setting::Value(bytes)))
            } else if is("keep") {
                Ok(())
            } else {
                field.set(&mut layer, &entry.value)
            };
            set.map_err(|problem| entry.fault(path, problem))
        })?;
        let limits = layer.limits;
        let budget = Budget {
            memory_bytes: limits.memory_bytes,
            memory_share_bytes: None,
            swap_bytes: limits.swap_bytes,
            cpus: limits.cpus,
            pids: limits.pids,
        };
        Ok((budget, names_memory))
    }

    fn defaults(&self, table: &Entry, path: &str) -> Result<Layer, Fault> {
        self.layer(table, path, DEFAULTS)
    }

    fn layer(&self, table: &Entry, path: &str, keys: Keys<Field>) -> Result<Layer, Fault> {
        let mut layer = Layer::silent(Source::Host);
        self.each(table.table(path)?, path, keys, |field, entry, path| {
            field
                .set(&mut layer, &entry.value)
                .map_err(|problem| entry.fault(path, problem))
        })?;
        Ok(layer)
    }

    fn ceilings(&self, table: &Entry, path: &str) -> Result<Ceilings, Fault> {
        let mut most = Layer::silent(Source::Host);
        let mut of_all = None;
        let mut own = BTreeMap::new();
        self.each(table.table(path)?, path, CEILINGS, |field, entry, path| {
            let fault = |problem| entry.fault(path, problem);
            match (field, &entry.value) {
                (None, value) => of_all = Some(excess(value).map_err(fault)?),
                (Some(field), Value::Table(parts)) => {
                    let mut is_given = false;
                    self.each(parts, path, CEILING, |part, entry, path| {
                        let fault = |problem| entry.fault(path, problem);
                        match part {
                            Part::AtMost => {
                                is_given = true;
                                field.set(&mut most, &entry.value).map_err(fault)?;
                            }
                            Part::Otherwise => {
                                own.insert(field, excess(&entry.value).map_err(fault)?);
                            }
                        }
                        Ok(())
                    })?;
                    if !is_given {
                        return Err(fault(Problem::Lacking("at-most")));
                    }
                }
                (Some(field), value) => field.set(&mut most, value).map_err(fault)?,
            }
            Ok(())
        })?;
        let of = |field| own.get(&field).copied();
        let limits = most.limits;
        Ok(Ceilings {
            memory_bytes: ceiling(limits.memory_bytes, of(Field::Memory)),
            swap_bytes: ceiling(limits.swap_bytes, of(Field::Swap)),
            cpus: ceiling(limits.cpus, of(Field::Cpus)),
            pids: ceiling(limits.pids, of(Field::Pids)),
            walltime: ceiling(limits.walltime, of(Field::Timeout)),
            cputime: ceiling(limits.cputime, of(Field::CpuTime)),
            grace: ceiling(most.actions.grace.map(Setting::Value), of(Field::Grace)),
            otherwise: of_all,
        })
    }
}

impl Entry {
    fn fault(&self, path: &str, problem: Problem) -> Fault {
        Fault {
            offset: self.offset,
            key: path.to_owned(),
            problem: Box::new(problem),
        }
    }

    fn table(&self, path: &str) -> Result<&[Entry], Fault> {
        if let Value::Table(entries) = &self.value {
            Ok(entries)
        } else {
            Err(self.fault(path, wrong_kind("a table", &self.value)))
        }
    }
}

fn ceiling<T>(at_most: Option<Setting<T>>, otherwise: Option<Excess>) -> Option<Ceiling<T>> {
    at_most.map(|at_most| Ceiling { at_most, otherwise })
}

fn excess(value: &Value) -> Result<Excess, Problem> {
    read(value, "\"refuse\" or \"cap\"", |text| match text {
        "refuse" => Ok(Excess::Refuse),
        "cap" => Ok(Excess::Cap),
        _ => Err(ValueError::UnknownWord {
            given: text.to_owned(),
            words: "refuse or cap",
        }),
    })
}

fn name(value: &Value) -> Result<String, Problem> {
    let Value::Text(name) = value else {
        return Err(wrong_kind("a user's name, or a number as text", value));
    };
    check_user(name)?;
    Ok(name.clone())
}

/// This host's share of memory for all runs.
fn share() -> Option<u64> {
    Proc::default().memory_total_bytes().map(share_of)
}

fn command(value: &Value) -> Result<String, Problem> {
    let Value::Text(command) = value else {
        return Err(wrong_kind("a line of shell", value));
    };
    Ok(command.clone())
}

fn join(within: &str, key: &str) -> String {
    if within.is_empty() {
        key.to_owned()
    } else {
        format!("{within}.{key}")
    }
}

fn find<T: Copy>(keys: Keys<T>, key: &str) -> Result<T, Problem> {
    let spelled = normal(key);
    if let Some((_, target)) = keys.iter().find(|(name, _)| *name == spelled) {
        return Ok(*target);
    }
    let names = || keys.iter().map(|(name, _)| *name);
    Err(like(names(), &spelled.to_ascii_lowercase()).map_or_else(
        || Problem::Unknown(names().collect::<Vec<_>>().join(", ")),
        Problem::DidYouMean,
    ))
}
