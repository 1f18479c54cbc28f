//! What clients of the service say: any line is a request or an error that can be printed, and a request says
//! the same once it was written and read again.

use sandbox::cli::RunArgs;
use sandbox::service::protocol::{Request, VERSION, Verb, to_line};
use sandbox::supervise::{ClientOrder, Control};
use sandbox::units::is_unprintable;

/// Checks a line.
///
/// # Panics
/// Where a reader panics, takes what it must not take, or words an error badly.
pub fn protocol(line: &[u8]) {
    // What is said while a run goes on comes from the same clients.
    let _ = serde_json::from_slice::<ClientOrder>(line);
    let _ = serde_json::from_slice::<Control>(line);
    match Request::parse(line) {
        Ok(request) => {
            assert_eq!(request.version, VERSION);
            let written = to_line(&request).expect("it was read from JSON");
            let newlines = written.iter().filter(|byte| **byte == b'\n').count();
            assert_eq!(newlines, 1, "a request is one line");
            let again = Request::parse(&written).expect("its own words");
            assert_eq!(to_line(&again).expect("JSON"), written);
            if let Verb::Run(start) = request.verb {
                let words = start.arguments.into_iter().map(|word| word.0);
                // A mistake is told to the client by clap.
                let _ = RunArgs::parse(words);
            }
        }
        Err(reason) => assert!(!reason.contains(is_unprintable), "{reason:?}"),
    }
}
