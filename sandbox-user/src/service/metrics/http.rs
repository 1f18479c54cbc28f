//! Metrics over HTTP, for a monitoring system that runs on the host: `GET /metrics` and nothing else.
//!
//! One request a connection, its head read by `httparse`. A whole HTTP server would be six more crates in a
//! process that is root, for one page. Every local user can connect, so that what one of them can hold up
//! is bounded in size, time and number; and where all places are taken, the oldest connection makes
//! place, so that any number of idle ones keep nobody out.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::io;
use std::rc::Rc;
use std::time::Duration;

use httparse::Status;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{AbortHandle, spawn_local, yield_now};
use tokio::time::{sleep, timeout};

use super::{Format, Metrics};
use crate::say::say;

/// The page.
pub const PATH: &str = "/metrics";

/// The longest head of a request, bytes.
const MAX_HEAD_BYTES: usize = 8 << 10;
const MAX_HEADERS: usize = 64;
const BOUNDS: Bounds = Bounds {
    connections: 32,
    head_within: Duration::from_secs(1),
    within: Duration::from_secs(5),
};
/// How long to wait where no connection can be accepted (EMFILE and the like).
const AGAIN_AFTER: Duration = Duration::from_secs(1);

/// What clients may hold up.
#[derive(Clone, Copy, Debug)]
struct Bounds {
    /// Connections at a time; a further one ends the oldest.
    connections: usize,
    /// How long the head of a request may take.
    head_within: Duration,
    /// How long one may last.
    within: Duration,
}

/// Serves metrics to all who connect, for good. To be called in a [`tokio::task::LocalSet`].
pub async fn serve(listener: TcpListener, metrics: Rc<Metrics>) -> Infallible {
    serve_within(BOUNDS, listener, metrics).await
}

async fn serve_within(bounds: Bounds, listener: TcpListener, metrics: Rc<Metrics>) -> Infallible {
    // The oldest first.
    let mut open: VecDeque<AbortHandle> = VecDeque::new();
    loop {
        match listener.accept().await {
            Ok((socket, _)) => {
                open.retain(|connection| !connection.is_finished());
                if open.len() >= bounds.connections
                    && let Some(oldest) = open.pop_front()
                {
                    oldest.abort();
                }
                let metrics = Rc::clone(&metrics);
                let connection = spawn_local(async move {
                    let attended = attend(socket, bounds.head_within, &metrics);
                    // Whoever goes before the end, or is too slow, has nothing to be told.
                    let _ = timeout(bounds.within, attended).await;
                });
                open.push_back(connection.abort_handle());
                // What it asks is read before others can push it out.
                yield_now().await;
            }
            Err(error) => {
                say(format_args!(
                    "a connection for metrics could not be accepted: {error}"
                ));
                sleep(AGAIN_AFTER).await;
            }
        }
    }
}

async fn attend(mut socket: TcpStream, head_within: Duration, metrics: &Metrics) -> io::Result<()> {
    let Some(response) = timeout(head_within, response_to(&mut socket, metrics)).await?? else {
        return Ok(());
    };
    socket.write_all(response.as_bytes()).await?;
    socket.shutdown().await
}

/// What is said to whatever comes; `None` where the client goes first.
async fn response_to(socket: &mut TcpStream, metrics: &Metrics) -> io::Result<Option<String>> {
    let mut head = Vec::new();
    let mut part = [0; 1024];
    loop {
        let length = socket.read(&mut part).await?;
        if length == 0 {
            return Ok(None);
        }
        head.extend_from_slice(part.get(..length).unwrap_or_default());
        if let Some(response) = respond(&head, metrics) {
            return Ok(Some(response));
        }
        if head.len() > MAX_HEAD_BYTES {
            return Ok(Some(too_large()));
        }
    }
}

/// What is said to a request; `None` where its head is not whole yet.
fn respond(head: &[u8], metrics: &Metrics) -> Option<String> {
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut request = httparse::Request::new(&mut headers);
    match request.parse(head) {
        Ok(Status::Partial) => return None,
        Ok(Status::Complete(_)) => {}
        Err(httparse::Error::TooManyHeaders) => return Some(too_large()),
        Err(error) => {
            return Some(refusal(
                "400 Bad Request",
                &format!("not HTTP/1.1: {error}"),
            ));
        }
    }
    let path = request.path.and_then(|path| path.split('?').next());
    Some(match (request.method, path) {
        (Some("GET"), Some(PATH)) => {
            let accept = request
                .headers
                .iter()
                .filter(|header| header.name.eq_ignore_ascii_case("accept"))
                .filter_map(|header| std::str::from_utf8(header.value).ok());
            let format = Format::for_accept(&accept.collect::<Vec<_>>().join(","));
            response("200 OK", format.content_type(), &metrics.render(format))
        }
        (Some("GET"), _) => refusal("404 Not Found", "metrics are at /metrics"),
        _ => refusal(
            "405 Method Not Allowed\r\nAllow: GET",
            "there is only GET /metrics",
        ),
    })
}

fn too_large() -> String {
    let why = "the request's head is too large";
    refusal("431 Request Header Fields Too Large", why)
}

fn refusal(status: &str, why: &str) -> String {
    response(status, "text/plain; charset=utf-8", &format!("{why}\n"))
}

fn response(status: &str, content_type: &str, body: &str) -> String {
    format!(
        "HTTP/1.1 {status}\r\nContent-Type: {content_type}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    )
}

#[cfg(test)]
mod tests {
    use tokio::task::LocalSet;

    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    /// Has a server with these bounds, and something done with its address.
    fn with_server<T>(
        bounds: Bounds,
        deed: impl AsyncFnOnce(std::net::SocketAddr) -> io::Result<T>,
    ) -> T {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime");
        let done = LocalSet::new().block_on(&runtime, async {
            let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
            let address = listener.local_addr().expect("it has one");
            let server = serve_within(bounds, listener, Rc::new(Metrics::new()));
            tokio::select! {
                done = timeout(LONG, deed(address)) => done,
                never = server => match never {},
            }
        });
        done.expect("in time").expect("talked to")
    }

    async fn ask(address: std::net::SocketAddr, request: &[u8]) -> io::Result<String> {
        let mut socket = TcpStream::connect(address).await?;
        socket.write_all(request).await?;
        let mut answer = String::new();
        socket.read_to_string(&mut answer).await?;
        Ok(answer)
    }

    /// A text's lines: of one family, samples come in any order.
    fn sorted(text: &str) -> Vec<&str> {
        let mut lines: Vec<&str> = text.lines().collect();
        lines.sort_unstable();
        lines
    }

    #[test]
    fn metrics_are_at_one_path_in_the_form_that_is_asked_for() {
        let answers = with_server(BOUNDS, async |address| {
            Ok([
                ask(address, b"GET /metrics HTTP/1.1\r\nHost: a\r\nAccept: application/openmetrics-text\r\n\r\n").await?,
                ask(address, b"GET /metrics?a=b HTTP/1.0\r\n\r\n").await?,
            ])
        });
        for (answer, format) in answers
            .iter()
            .zip([Format::OpenMetrics, Format::Prometheus])
        {
            let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
            assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
            let kind = format!("\r\nContent-Type: {}\r\n", format.content_type());
            assert!(head.contains(&kind), "{head}");
            let length = format!("\r\nContent-Length: {}\r\n", body.len());
            assert!(head.contains(&length), "{head}");
            assert_eq!(sorted(body), sorted(&Metrics::new().render(format)));
        }
    }

    #[test]
    fn whatever_else_is_asked_for_is_refused() {
        let many = format!(
            "GET /metrics HTTP/1.1\r\n{}\r\n",
            "a: b\r\n".repeat(MAX_HEADERS + 1)
        );
        let long = format!(
            "GET /metrics HTTP/1.1\r\na: {}",
            "b".repeat(MAX_HEAD_BYTES + 1)
        );
        for (request, status) in [
            ("GET / HTTP/1.1\r\n\r\n", "404 Not Found"),
            ("GET /metrics/x HTTP/1.1\r\n\r\n", "404 Not Found"),
            ("POST /metrics HTTP/1.1\r\n\r\n", "405 Method Not Allowed"),
            ("\u{1}\u{2}\r\n\r\n", "400 Bad Request"),
            (&many, "431 Request Header Fields Too Large"),
            (&long, "431 Request Header Fields Too Large"),
        ] {
            let answer = with_server(BOUNDS, async |address| {
                ask(address, request.as_bytes()).await
            });
            let expected = format!("HTTP/1.1 {status}\r\n");
            assert!(answer.starts_with(&expected), "{request:?}: {answer}");
        }
    }

    #[test]
    fn who_says_nothing_is_let_go() {
        let bounds = Bounds {
            head_within: Duration::from_millis(50),
            within: LONG,
            ..BOUNDS
        };
        let answer = with_server(bounds, async |address| ask(address, b"GET /met").await);
        assert_eq!(answer, "");
    }

    #[test]
    fn any_number_of_idle_connections_keep_nobody_out() {
        // None of them is let go for its age.
        let bounds = Bounds {
            head_within: LONG,
            within: LONG,
            ..BOUNDS
        };
        let (answer, oldest) = with_server(bounds, async |address| {
            let mut idle = Vec::new();
            for _ in 0..50 {
                idle.push(TcpStream::connect(address).await?);
            }
            let answer = ask(address, b"GET /metrics HTTP/1.1\r\n\r\n").await?;
            let oldest = idle.first_mut().expect("there are 50");
            Ok((answer, oldest.read(&mut [0]).await?))
        });
        assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer}");
        assert_eq!(oldest, 0, "the oldest was let go");
    }
}
