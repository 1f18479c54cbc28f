//! Rules for the crates' manifests.

use toml::{Table, Value};

use super::{Breach, File};

/// All breaches in `file`, where it is a crate's manifest.
pub(super) fn check(file: &File) -> Vec<Breach> {
    if !file.path.ends_with("Cargo.toml") {
        return Vec::new();
    }
    let Ok(manifest) = file.text.parse::<Table>() else {
        return vec![file.breaks(1, "manifest", "this is not TOML")];
    };
    if !manifest.contains_key("package") {
        return Vec::new();
    }
    let mut breaches = Vec::new();
    let inherits = manifest
        .get("lints")
        .and_then(|lints| lints.get("workspace"))
        .and_then(Value::as_bool);
    if inherits != Some(true) {
        let why = "say `[lints] workspace = true`, so that one set of lints holds for all crates";
        breaches.push(file.breaks(1, "workspace-lints", why));
    }
    for kind in ["dependencies", "dev-dependencies", "build-dependencies"] {
        let dependencies = manifest
            .get(kind)
            .and_then(Value::as_table)
            .into_iter()
            .flatten();
        for (name, value) in dependencies {
            if value.get("workspace").and_then(Value::as_bool) != Some(true) {
                let line = file
                    .lines()
                    .find(|(_, line)| line.starts_with(name.as_str()));
                let why = format!(
                    "{name}: say `{name}.workspace = true`, so that a version is named once"
                );
                breaches.push(file.breaks(
                    line.map_or(1, |(number, _)| number),
                    "workspace-dependency",
                    why,
                ));
            }
        }
    }
    breaches
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(text: &str) -> Vec<(usize, &'static str)> {
        let file = File {
            path: "a/Cargo.toml".to_owned(),
            text: text.to_owned(),
        };
        check(&file)
            .into_iter()
            .map(|breach| (breach.line, breach.rule))
            .collect()
    }

    #[test]
    fn a_crate_without_the_workspaces_lints_is_found() {
        assert_eq!(rules("[package]\nname = \"a\"\n"), [(1, "workspace-lints")]);
        assert_eq!(
            rules("[package]\nname = \"a\"\n[lints]\nworkspace = true\n"),
            []
        );
        assert_eq!(rules("[workspace]\nmembers = []\n"), []);
    }

    #[test]
    fn a_version_that_only_one_crate_names_is_found() {
        let text = "[package]\nname = \"a\"\n[lints]\nworkspace = true\n[dependencies]\nclap.workspace = true\ntoml = \"1\"\n";
        assert_eq!(rules(text), [(7, "workspace-dependency")]);
    }
}
