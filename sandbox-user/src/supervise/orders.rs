//! What is asked of a run while it goes on: by signals to `sandbox`, by the client that a supervisor of the
//! service's works for, and by whoever root lets through to the run's own socket.

mod hear;

use std::{
    io,
    os::unix::net::{UnixListener as StdListener, UnixStream as StdStream},
    time::Duration,
};

use serde::{Deserialize, Serialize};
use tokio::{
    net::{UnixListener, UnixStream},
    sync::{mpsc, oneshot},
    time::timeout,
};

use self::hear::{hear, listen};
use super::signals::{Meaning, Origin, Received, Signals, meaning_of};
use crate::policy::{Ceiling, TimeoutChange};

/// The longest line that is read here.
const MAX_LINE_BYTES: usize = 4096;
/// How long whoever connects may take to say what is wanted.
const SAID_WITHIN: Duration = Duration::from_secs(10);

/// How many of those that wait are taken at a time: who goes on asking is not waited for.
const MOST_WAITING: usize = 256;

/// From where a supervisor of the service's is told what to do, besides signals.
#[derive(Debug)]
pub struct Remote {
    /// The client whose going ends the run.
    pub client: Option<Client>,
    /// The run's own socket.
    pub control: StdListener,
    /// Who has connected to that already.
    pub callers: Vec<StdStream>,
    /// Whether somebody has something to say already, which is to be heard before it begins.
    pub is_asked: bool,
}

/// A client that waits for its run.
#[derive(Debug)]
pub struct Client {
    /// Its connection.
    pub socket: StdStream,
    /// Its pid.
    pub pid: u32,
    /// What it has said by now.
    pub said: Vec<u8>,
}

/// What a client says while its run goes on, one JSON line each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ClientOrder {
    /// The client got this signal.
    Signal(i32),
}

/// Whether a client's line is a signal that is for the main process, and asks for no end.
pub(crate) fn is_passed_on(line: &[u8]) -> bool {
    match serde_json::from_slice(line) {
        Ok(ClientOrder::Signal(signal)) => meaning_of(signal) == Some(Meaning::PassOn),
        Err(_) => false,
    }
}

/// What is said on a run's own socket, one JSON line each.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Control {
    /// End it.
    Kill {
        /// Who wants that, for people.
        by: String,
        /// With which process.
        pid: u32,
        /// Why.
        reason: Option<String>,
        /// Whether a grace that has begun already is enough; else who asks twice does not want to wait.
        #[serde(default)]
        is_patient: bool,
    },
    /// Hold it still.
    Freeze(Asker),
    /// Let it go on.
    Thaw(Asker),
    /// Change its wall clock limit.
    Update {
        /// Who wants that.
        by: Asker,
        /// How.
        timeout: TimeoutChange,
        /// What it is held to, where it is more; null = nothing.
        ceiling: Option<Ceiling<Duration>>,
    },
}

/// Who has something done to a run, besides ending it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Asker {
    /// Who it is, for people.
    pub by: String,
    /// Who it is, by number.
    pub uid: u32,
    /// With which process.
    pub pid: u32,
}

/// What is answered there: what there is to be said of what was done, or why it was not. Nothing where the run
/// has ended meanwhile.
pub type Controlled = Result<Option<String>, String>;

/// What was said, and where the answer goes.
type Asked = (Control, oneshot::Sender<Controlled>);

/// Something that is asked of a run.
#[derive(Debug)]
pub(super) enum Order {
    /// `sandbox` or its client got a signal.
    Signal(Received),
    /// The client has gone.
    ClientGone,
    /// Somebody has said something on the run's socket, and waits for an answer.
    Control(Control, oneshot::Sender<Controlled>),
}

impl Order {
    /// Whether it asks for the end.
    pub(super) fn ends(&self) -> bool {
        match self {
            Self::Signal(received) => received.meaning == Meaning::Cancel,
            Self::ClientGone | Self::Control(Control::Kill { .. }, _) => true,
            Self::Control(Control::Freeze(_) | Control::Thaw(_) | Control::Update { .. }, _) => {
                false
            }
        }
    }

    /// Whether it asks for the end of what is run when the run is over: who is to be told of that is told, whether
    /// the client is still there or not.
    pub(super) fn ends_hook(&self) -> bool {
        self.ends() && !matches!(self, Self::ClientGone)
    }
}

/// All from whom orders come.
pub(super) struct Orders {
    signals: Signals,
    client: Option<Listened>,
    inbox: Option<mpsc::UnboundedReceiver<Asked>>,
    is_asked: bool,
}

impl Orders {
    /// Opens the queue of this process's signals, and listens to the others.
    ///
    /// # Errors
    /// EMFILE and the like.
    pub(super) fn open(remote: Option<Remote>) -> io::Result<Self> {
        let signals = Signals::open()?;
        let Some(Remote {
            client,
            control,
            callers,
            is_asked,
        }) = remote
        else {
            return Ok(Self {
                signals,
                client: None,
                inbox: None,
                is_asked: false,
            });
        };
        control.set_nonblocking(true)?;
        let (sender, inbox) = mpsc::unbounded_channel();
        for caller in callers {
            caller.set_nonblocking(true)?;
            tokio::spawn(hear(UnixStream::from_std(caller)?, sender.clone()));
        }
        tokio::spawn(listen(UnixListener::from_std(control)?, sender));
        Ok(Self {
            signals,
            client: client.map(Listened::to).transpose()?,
            inbox: Some(inbox),
            is_asked,
        })
    }

    /// Waits for the next one. What is dropped before it is done has taken nothing.
    ///
    /// # Errors
    /// Where the signals cannot be read.
    pub(super) async fn next(&mut self) -> io::Result<Order> {
        tokio::select! {
            received = self.signals.next() => Ok(Order::Signal(received?)),
            order = next_of(self.client.as_mut()) => Ok(order),
            Some((control, answer)) = received(self.inbox.as_mut()) => Ok(Order::Control(control, answer)),
        }
    }

    /// What was asked for before there was anything to be told. A run that gave up its turn for somebody is ended
    /// for that, whatever it was.
    ///
    /// # Errors
    /// As [`Self::next`].
    pub(super) async fn first(&mut self) -> io::Result<Option<Order>> {
        if !std::mem::take(&mut self.is_asked) {
            return self.try_next();
        }
        match timeout(SAID_WITHIN, self.next()).await {
            Ok(Ok(order)) if order.ends() => Ok(Some(order)),
            Ok(Ok(_)) | Err(_) => Ok(Some(Order::ClientGone)),
            Ok(Err(error)) => Err(error),
        }
    }

    /// Those that have come by now, so many at most. Where no more can be read there are none.
    pub(super) fn waiting(&mut self) -> Vec<Order> {
        let next = || self.try_next().ok().flatten();
        std::iter::from_fn(next).take(MOST_WAITING).collect()
    }

    /// The next one, if there is any.
    ///
    /// # Errors
    /// As [`Self::next`].
    pub(super) fn try_next(&mut self) -> io::Result<Option<Order>> {
        if let Some(received) = self.signals.try_next()? {
            return Ok(Some(Order::Signal(received)));
        }
        if let Some(order) = self.client.as_mut().and_then(Listened::try_next) {
            return Ok(Some(order));
        }
        let said = self.inbox.as_mut().and_then(|inbox| inbox.try_recv().ok());
        Ok(said.map(|(control, answer)| Order::Control(control, answer)))
    }
}

async fn next_of(client: Option<&mut Listened>) -> Order {
    match client {
        Some(client) => client.next().await,
        None => std::future::pending().await,
    }
}

async fn received<T>(inbox: Option<&mut mpsc::UnboundedReceiver<T>>) -> Option<T> {
    match inbox {
        Some(inbox) => inbox.recv().await,
        None => std::future::pending().await,
    }
}

/// A client that is listened to.
struct Listened {
    socket: UnixStream,
    pid: u32,
    /// What was read and is no whole line yet.
    begun: Vec<u8>,
    is_there: bool,
}

impl Listened {
    fn to(client: Client) -> io::Result<Self> {
        let Client { socket, pid, said } = client;
        socket.set_nonblocking(true)?;
        Ok(Self {
            socket: UnixStream::from_std(socket)?,
            pid,
            begun: said,
            is_there: true,
        })
    }

    async fn next(&mut self) -> Order {
        loop {
            if let Some(order) = self.try_next() {
                return order;
            }
            if !self.is_there {
                return std::future::pending().await;
            }
            // Where that fails, reading does.
            let _ = self.socket.readable().await;
        }
    }

    fn try_next(&mut self) -> Option<Order> {
        while self.is_there {
            if let Some(end) = self.begun.iter().position(|byte| *byte == b'\n') {
                let rest = self.begun.split_off(end + 1);
                let line = std::mem::replace(&mut self.begun, rest);
                match self.understand(&line) {
                    Some(received) => return Some(Order::Signal(received)),
                    None => break,
                }
            }
            let mut part = [0; 512];
            match self.socket.try_read(&mut part) {
                Ok(length @ 1..) if self.begun.len() + length <= MAX_LINE_BYTES => {
                    self.begun.extend(part.iter().take(length));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return None,
                Ok(_) | Err(_) => break,
            }
        }
        // It has gone, or talks nonsense.
        std::mem::take(&mut self.is_there).then_some(Order::ClientGone)
    }

    fn understand(&self, line: &[u8]) -> Option<Received> {
        let ClientOrder::Signal(signal) = serde_json::from_slice(line).ok()?;
        Some(Received {
            signal,
            meaning: meaning_of(signal)?,
            origin: Origin::Process(self.pid),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};

    use super::*;

    fn client(said: &[u8]) -> (StdStream, Listened) {
        let (near, socket) = StdStream::pair().expect("a pair");
        let client = Client {
            socket,
            pid: 7,
            said: said.to_owned(),
        };
        (near, Listened::to(client).expect("a client"))
    }

    fn with_runtime(test: impl AsyncFnOnce()) {
        let runtime = super::super::runtime::runtime().expect("a runtime");
        runtime.block_on(test());
    }

    #[test]
    fn a_clients_signals_come_one_by_one_and_then_that_it_has_gone_once() {
        with_runtime(async || {
            let (mut near, mut client) = client(b"{\"sig");
            near.write_all(b"nal\":15}\n{\"signal\":10}\n{\"sig")
                .expect("written");
            for (signal, meaning) in [(15, Meaning::Cancel), (10, Meaning::PassOn)] {
                let Order::Signal(received) = client.next().await else {
                    panic!("not a signal");
                };
                let origin = Origin::Process(7);
                let expected = Received {
                    signal,
                    meaning,
                    origin,
                };
                assert_eq!(received, expected);
            }
            assert!(client.try_next().is_none());
            drop(near);
            assert!(matches!(client.next().await, Order::ClientGone));
            assert!(client.try_next().is_none());
        });
    }

    #[test]
    fn a_client_that_talks_nonsense_counts_as_gone() {
        let long = vec![b'x'; MAX_LINE_BYTES + 1];
        for said in [&b"hello\n"[..], b"{\"signal\":9}\n", &long] {
            with_runtime(async || {
                let (mut near, mut client) = client(b"");
                near.write_all(said).expect("written");
                assert!(matches!(client.next().await, Order::ClientGone));
            });
        }
    }

    #[test]
    fn of_what_is_said_on_the_socket_only_a_kill_ends_a_run() {
        let ana = r#"{"by":"ana","uid":1000,"pid":9}"#;
        let ceiling = r#"{"at_most":{"value":{"secs":7200,"nanos":0}},"otherwise":"cap"}"#;
        for (line, ends) in [
            (
                r#"{"kill":{"by":"ana","pid":9,"reason":null}}"#.to_owned(),
                true,
            ),
            (format!(r#"{{"freeze":{ana}}}"#), false),
            (format!(r#"{{"thaw":{ana}}}"#), false),
            (
                format!(r#"{{"update":{{"by":{ana},"timeout":"+1h","ceiling":null}}}}"#),
                false,
            ),
            (
                format!(r#"{{"update":{{"by":{ana},"timeout":"none","ceiling":{ceiling}}}}}"#),
                false,
            ),
        ] {
            let control: Control = serde_json::from_str(&line).expect(&line);
            let (answer, _) = oneshot::channel();
            assert_eq!(Order::Control(control, answer).ends(), ends, "{line}");
        }
    }

    #[test]
    fn what_is_said_on_the_socket_is_heard_and_answered() {
        with_runtime(async || {
            let temp = tempfile::tempdir().expect("temp dir");
            let path = temp.path().join("control");
            let control = StdListener::bind(&path).expect("bound");
            let remote = Remote {
                client: None,
                control,
                callers: Vec::new(),
                is_asked: false,
            };
            let mut orders = Orders::open(Some(remote)).expect("open");
            let ask = |line: &'static str| {
                let path = path.clone();
                tokio::spawn(async move {
                    let socket = UnixStream::connect(path).await.expect("connected");
                    let (answers, mut said) = socket.into_split();
                    said.write_all(line.as_bytes()).await.expect("said");
                    let mut answer = String::new();
                    let mut answers = BufReader::new(answers);
                    answers.read_line(&mut answer).await.expect("answered");
                    answer
                })
            };
            let asked = ask("{\"kill\":{\"by\":\"ada\",\"pid\":9,\"reason\":null}}\n");
            let order = orders.next().await.expect("an order");
            assert!(order.ends());
            let Order::Control(_, answer) = order else {
                panic!("not from the socket");
            };
            answer.send(Ok(None)).expect("somebody waits");
            assert_eq!(asked.await.expect("answered"), "{\"Ok\":null}\n");
            // Who has gone meanwhile wants nothing any more.
            let mut gone = StdStream::connect(&path).expect("connected");
            gone.write_all(b"{\"kill\":{\"by\":\"bob\",\"pid\":9,\"reason\":null}}\n")
                .expect("said");
            drop(gone);
            let said = ask("please\n").await.expect("answered");
            assert!(said.contains("not an order"), "{said}");
            assert!(orders.try_next().expect("read").is_none());
        });
    }
}
