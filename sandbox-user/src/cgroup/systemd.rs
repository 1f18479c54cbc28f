//! Asking systemd for a transient scope, and waiting until it is really there.
//!
//! StartTransientUnit returns when the job is queued, before the process is moved: limits and
//! `supervisor/` would go to the wrong cgroup. So the signal JobRemoved is subscribed to before the
//! call, its result is awaited with a bound, and the process's own /proc says where it landed.
//! Interface: org.freedesktop.systemd1(5), systemd.scope(5). The system bus is the only way in:
//! zbus panics on systemd's private socket, whose messages carry a sender that is no unique name.

use std::time::Duration;

use futures_util::StreamExt;
use uuid::Uuid;
use zbus::zvariant::{OwnedObjectPath, Value};
use zbus::{Connection, MatchRule, Message, MessageStream, message};

use super::budget::Changes;
use super::error::CgroupError;
use super::owner::Proc;

/// How long the scope's job may take. PID 1 answers within milliseconds, unless it is reloading or
/// the machine is emulated.
const JOB_TIMEOUT: Duration = Duration::from_secs(30);
const DESTINATION: &str = "org.freedesktop.systemd1";
const MANAGER_PATH: &str = "/org/freedesktop/systemd1";
const MANAGER: &str = "org.freedesktop.systemd1.Manager";

/// `a(sv)` and `a(sa(sv))` of StartTransientUnit.
type Properties<'a> = Vec<(&'a str, Value<'a>)>;
type Auxiliary<'a> = Vec<(&'a str, Properties<'a>)>;

/// Whether the scope's OOMPolicy= is said. Scopes have it from systemd 253 on; before, a scope is
/// left alone at an OOM kill, which is what `continue` asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum OomPolicy {
    Continue,
    Unsaid,
}

/// The scope of a run.
pub fn scope_name(run_id: Uuid) -> String {
    format!("sandbox-{run_id}.scope")
}

/// Starts the run's scope in a slice, given as its cgroup, around a process and returns its cgroup, once the process is in it.
/// The scope ends when its last process does, and its cgroup with it.
///
/// # Errors
/// When systemd cannot be reached, refuses, or does not finish in 30 s.
pub(super) async fn start_scope(
    pid: u32,
    run_id: Uuid,
    slice: &str,
) -> Result<String, CgroupError> {
    let unit = scope_name(run_id);
    let timed_out = || CgroupError::ScopeTimedOut {
        unit: unit.clone(),
        seconds: JOB_TIMEOUT.as_secs(),
    };
    tokio::time::timeout(JOB_TIMEOUT, start_and_wait(&unit, pid, slice))
        .await
        .map_err(|_| timed_out())??;
    let cgroup = match Proc::default().cgroup(&pid.to_string()) {
        Err(CgroupError::Read { .. }) => return Err(CgroupError::ProcessGone { pid }),
        cgroup => cgroup?,
    };
    if cgroup.ends_with(&format!("/{unit}")) {
        Ok(cgroup)
    } else {
        Err(CgroupError::NotInScope { unit, pid, cgroup })
    }
}

async fn start_and_wait(unit: &str, pid: u32, slice: &str) -> Result<(), CgroupError> {
    let slice = slice.rsplit_once('/').map_or(slice, |(_, name)| name);
    let refused = |reason: String| CgroupError::ScopeRefused {
        unit: unit.to_owned(),
        reason,
    };
    let failed = |error: zbus::Error| refused(error.to_string());
    let bus = Bus::connect().await?;
    let mut removed = bus.jobs_removed().await.map_err(failed)?;
    let job = match bus.start(unit, pid, slice, OomPolicy::Continue).await {
        Err(error) if names_oom_policy(&error) => {
            bus.start(unit, pid, slice, OomPolicy::Unsaid).await
        }
        result => result,
    }
    .map_err(failed)?;
    while let Some(message) = removed.next().await {
        match JobRemoved::decode(&message.map_err(failed)?) {
            Some(done) if done.job == job => {
                return match done.result.as_str() {
                    "done" => Ok(()),
                    result => Err(refused(format!("its job ended with {result:?}"))),
                };
            }
            Some(_) | None => {}
        }
    }
    Err(refused(
        "the connection was closed before the job was done".to_owned(),
    ))
}

/// Has systemd limit a slice until the next boot. It answers before it has written the files.
///
/// # Errors
/// When systemd cannot be reached, refuses, or does not answer in 30 s.
pub(super) async fn set_limits(slice: &str, changes: &Changes) -> Result<(), CgroupError> {
    let refused = |reason: String| CgroupError::BudgetRefused {
        slice: slice.to_owned(),
        reason,
    };
    let set = async {
        let bus = Bus::connect().await?;
        let body = (slice, true, properties_of(changes));
        match bus.call("SetUnitProperties", &body).await {
            Ok(_) => Ok(()),
            Err(error) => Err(refused(error.to_string())),
        }
    };
    match tokio::time::timeout(JOB_TIMEOUT, set).await {
        Ok(set) => set,
        Err(_) => Err(refused(format!(
            "no answer within {} s",
            JOB_TIMEOUT.as_secs()
        ))),
    }
}

/// As systemd.resource-control(5) calls them; the largest number is infinity.
fn properties_of(changes: &Changes) -> Properties<'static> {
    let number = |value: Option<u64>| Value::from(value.unwrap_or(u64::MAX));
    let a_second = changes.cpus.map(|cores| cores.map(micros_a_second));
    [
        ("MemoryMax", changes.memory_bytes),
        ("MemorySwapMax", changes.swap_bytes),
        ("TasksMax", changes.pids),
        ("CPUQuotaPerSecUSec", a_second),
    ]
    .into_iter()
    .filter_map(|(name, value)| Some((name, number(value?))))
    .collect()
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "cores are positive and at most a million"
)]
fn micros_a_second(cores: f64) -> u64 {
    (cores * 1e6).round() as u64
}

/// A connection to systemd's manager.
struct Bus(Connection);

impl Bus {
    async fn connect() -> Result<Self, CgroupError> {
        match Connection::system().await {
            Ok(connection) => Ok(Self(connection)),
            Err(error) => Err(CgroupError::SystemdUnreachable {
                reason: error.to_string(),
            }),
        }
    }

    /// Signals JobRemoved from now on.
    async fn jobs_removed(&self) -> zbus::Result<MessageStream> {
        let rule = MatchRule::builder()
            .msg_type(message::Type::Signal)
            .sender(DESTINATION)?
            .path(MANAGER_PATH)?
            .interface(MANAGER)?
            .member("JobRemoved")?
            .build();
        let stream = MessageStream::for_match_rule(rule, &self.0, Some(64)).await?;
        self.call("Subscribe", &()).await?;
        Ok(stream)
    }

    /// Queues the start of the scope; the job's object path.
    async fn start(
        &self,
        unit: &str,
        pid: u32,
        slice: &str,
        oom: OomPolicy,
    ) -> zbus::Result<OwnedObjectPath> {
        let mut properties: Properties<'_> = vec![
            ("Description", Value::from("Analysis run by sandbox")),
            ("Slice", Value::from(slice)),
            ("PIDs", Value::from(vec![pid])),
            ("Delegate", Value::from(true)),
            // The default, some 4700 tasks, would be a limit that nobody asked for.
            ("TasksMax", Value::from(u64::MAX)),
            // A scope that failed would stay, and hold its name.
            ("CollectMode", Value::from("inactive-or-failed")),
        ];
        match oom {
            // The default elsewhere ends the guardian with the leaf.
            OomPolicy::Continue => properties.push(("OOMPolicy", Value::from("continue"))),
            OomPolicy::Unsaid => {}
        }
        let body = (unit, "fail", properties, Auxiliary::new());
        self.call("StartTransientUnit", &body)
            .await?
            .body()
            .deserialize()
    }

    async fn call<B>(&self, method: &str, body: &B) -> zbus::Result<Message>
    where
        B: serde::Serialize + zbus::zvariant::DynamicType,
    {
        let (destination, interface) = (Some(DESTINATION), Some(MANAGER));
        self.0
            .call_method(destination, MANAGER_PATH, interface, method, body)
            .await
    }
}

/// A finished job.
struct JobRemoved {
    job: OwnedObjectPath,
    result: String,
}

impl JobRemoved {
    /// `u id, o job, s unit, s result`; `None` for another message.
    fn decode(message: &Message) -> Option<Self> {
        if message
            .header()
            .member()
            .is_none_or(|member| member.as_str() != "JobRemoved")
        {
            return None;
        }
        let (_, job, _, result): (u32, OwnedObjectPath, String, String) =
            message.body().deserialize().ok()?;
        Some(Self { job, result })
    }
}

/// "Cannot set property OOMPolicy, or unknown property."
fn names_oom_policy(error: &zbus::Error) -> bool {
    error.to_string().contains("OOMPolicy")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scope_is_named_after_its_run() {
        let run_id = Uuid::from_u128(7);
        assert_eq!(
            scope_name(run_id),
            "sandbox-00000000-0000-0000-0000-000000000007.scope"
        );
    }

    #[test]
    fn limits_are_properties_and_a_lifted_one_is_infinity() {
        let changes = Changes {
            memory_bytes: Some(Some(4096)),
            pids: Some(None),
            cpus: Some(Some(1.5)),
            swap_bytes: None,
        };
        let expected = [
            ("MemoryMax", Value::from(4096_u64)),
            ("TasksMax", Value::from(u64::MAX)),
            ("CPUQuotaPerSecUSec", Value::from(1_500_000_u64)),
        ];
        assert_eq!(properties_of(&changes), expected);
    }

    #[test]
    fn job_removed_carries_the_job_and_its_result() {
        let job = OwnedObjectPath::try_from("/org/freedesktop/systemd1/job/5").expect("a path");
        let signal = |member| {
            Message::signal(MANAGER_PATH, MANAGER, member)
                .expect("header")
                .build(&(5_u32, &job, "a.scope", "done"))
                .expect("body")
        };
        let done = JobRemoved::decode(&signal("JobRemoved")).expect("decoded");
        assert_eq!((done.job, done.result.as_str()), (job.clone(), "done"));
        assert!(JobRemoved::decode(&signal("JobNew")).is_none());
    }
}
