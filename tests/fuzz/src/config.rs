//! The reader of the host's configuration: any text is a configuration or an error, whatever is taken
//! as a default, a ceiling or a budget is a limit that the kernel can hold, and an error is a line that can be printed.

use std::path::Path;

use sandbox::config::{Config, Rules, ServiceConfig};
use sandbox::limits::Source;
use sandbox::policy::{Budget, Ceilings, Layer, LimitOverrides};

use crate::checks::{kept, said};

/// Checks a document.
///
/// # Panics
/// Where the reader panics, takes what it must not take, or words an error badly.
pub fn config(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    let name = "config.toml";
    match Config::parse(text, Path::new(name)) {
        Ok(config) => {
            kept(&budget_as_limits(&config.budget));
            reached_from_the_host(&config.service);
            all_rules(&config).for_each(|rules| {
                kept(&rules.defaults);
                kept(&as_limits(&rules.ceilings));
            });
        }
        Err(error) => said(&error.to_string(), error.place(), name, text),
    }
}

fn reached_from_the_host(service: &ServiceConfig) {
    assert!(
        service
            .metrics
            .is_none_or(|address| address.ip().is_loopback())
    );
    let mut paths = service.metadata_paths.iter().flatten();
    assert!(paths.all(|path| path.is_absolute()));
}

fn all_rules(config: &Config) -> impl Iterator<Item = &Rules> {
    let of_some = config.groups.iter().chain(&config.users);
    std::iter::once(&config.rules).chain(of_some.map(|(_, rules)| rules))
}

/// The budget as the limits that it becomes.
fn budget_as_limits(budget: &Budget) -> Layer {
    Layer {
        limits: LimitOverrides {
            memory_bytes: budget.memory_bytes,
            swap_bytes: budget.swap_bytes,
            cpus: budget.cpus,
            pids: budget.pids,
            ..LimitOverrides::default()
        },
        ..Layer::silent(Source::Host)
    }
}

/// Ceilings as the limits that they become.
fn as_limits(ceilings: &Ceilings) -> Layer {
    Layer {
        limits: LimitOverrides {
            memory_bytes: ceilings.memory_bytes.map(|ceiling| ceiling.at_most),
            swap_bytes: ceilings.swap_bytes.map(|ceiling| ceiling.at_most),
            cpus: ceilings.cpus.map(|ceiling| ceiling.at_most),
            pids: ceilings.pids.map(|ceiling| ceiling.at_most),
            walltime: ceilings.walltime.map(|ceiling| ceiling.at_most),
            cputime: ceilings.cputime.map(|ceiling| ceiling.at_most),
        },
        ..Layer::silent(Source::Ceiling)
    }
}
