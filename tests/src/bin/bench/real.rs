//! What people run: a build of a C program, and a pipeline with numpy. In a plain cgroup with the same limits, under
//! `sandbox`, and with no limits at all.

use std::fs;
use std::path::Path;
use std::time::Instant;

use sandbox_tests::Scene;
use serde_json::Value;

use crate::plain;
use crate::rows::Rows;

/// The plain cgroup, and its limits: neither comes near them but for the processors, all of which it may use.
const PLAIN: &str = "/sys/fs/cgroup/plain";
const LIMITS: [&str; 3] = ["1G", "500", "200000 100000"];
/// Who runs it: its name, and what a shell is told, with the analysis's words in the place of `{}`.
const CONTENDERS: [(&str, &str); 4] = [
    (
        "a plain cgroup",
        "echo $$ >/sys/fs/cgroup/plain/cgroup.procs && exec setpriv --reuid ana --regid ana --init-groups {}",
    ),
    (
        "sandbox run --standalone",
        "exec sandbox run --standalone --notes never --user ana --memory 1GiB --cpus 2 --pids 500 -- {}",
    ),
    (
        "sandbox run, by the service",
        "exec sandbox run --notes never --user ana --memory 1GiB --cpus 2 --pids 500 -- {}",
    ),
    (
        "no limits",
        "exec setpriv --reuid ana --regid ana --init-groups {}",
    ),
];
/// What is built: Lua, as its authors have released it, which needs nothing but a C compiler.
const BUILD: Analysis = Analysis {
    name: "real-build",
    before: "rm -rf /tmp/build && mkdir /tmp/build && \
             tar -xf /payload/files/source.tar -C /tmp/build --strip-components=1 && chown -R ana /tmp/build",
    words: "make --silent --jobs=2 --directory=/tmp/build/src linux",
};
const PIPELINE: Analysis = Analysis {
    name: "real-numpy",
    before: "true",
    words: "python3 /tmp/pipeline.py",
};

struct Analysis {
    name: &'static str,
    /// What is done before each, unmeasured.
    before: &'static str,
    words: &'static str,
}

/// Measures both so often.
pub(crate) fn measure(rounds: usize) -> Vec<Value> {
    fs::write("/tmp/pipeline.py", include_str!("pipeline.py")).expect("/tmp can be written to");
    plain::make(Path::new(PLAIN), LIMITS);
    let results = [BUILD, PIPELINE].map(|analysis| analysis.measure(rounds));
    fs::remove_dir(PLAIN).expect("nobody is in it");
    results.into()
}

impl Analysis {
    fn measure(&self, rounds: usize) -> Value {
        let scene = Scene::new();
        let mut took = CONTENDERS.map(|_| Vec::new());
        // One that is not measured, so that all find the same in the page cache.
        for round in 0..=rounds {
            // None of them always has what the same other one leaves.
            for index in 0..CONTENDERS.len() {
                let contender = (round + index) % CONTENDERS.len();
                let (_, told) = CONTENDERS[contender];
                let _done = scene.bash(self.before).expect(0);
                let began = Instant::now();
                let _done = scene.bash(&told.replace("{}", self.words)).expect(0);
                if round > 0 {
                    took[contender].push(began.elapsed().as_secs_f64());
                }
            }
        }
        let mut rows = Rows::new(self.name, "s");
        for ((name, _), took) in CONTENDERS.iter().zip(took) {
            took.into_iter().for_each(|took| rows.push(name, took));
        }
        rows.result([])
    }
}
