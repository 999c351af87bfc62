//! One gRPC call over a connection of its own.
//!
//! The agent calls the kubelet seldom (to register, to ask which pod has what), and a connection that
//! is kept open is one more that breaks when the kubelet restarts.

use std::future::Future;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request, Response, header};
use prost::Message;
use tokio::net::UnixStream;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::grpc::{Code, Frames, Status, framed};

/// Largest answer: what others who list pod resources allow too.
const LARGEST_ANSWER: usize = 16 * 1024 * 1024;

/// A call did not get its answer.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// Nobody listens.
    #[error("connect to {}", socket.display())]
    Connect {
        /// The socket.
        socket: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// The connection broke.
    #[error("call {method} on {}", socket.display())]
    Broken {
        /// The method.
        method: &'static str,
        /// The socket.
        socket: PathBuf,
        /// What HTTP/2 said.
        source: h2::Error,
    },
    /// It took too long.
    #[error("call {method} on {}: no answer in {} s", socket.display(), deadline.as_secs())]
    Late {
        /// The method.
        method: &'static str,
        /// The socket.
        socket: PathBuf,
        /// How long it was waited for.
        deadline: Duration,
    },
    /// The other side refused.
    #[error("call {method} on {}", socket.display())]
    Refused {
        /// The method.
        method: &'static str,
        /// The socket.
        socket: PathBuf,
        /// Why.
        source: Status,
    },
}

/// Calls a method that takes one message and answers with one.
pub async fn call<A: Message + Default>(
    socket: &Path,
    method: &'static str,
    request: &impl Message,
    deadline: Duration,
) -> Result<A, CallError> {
    let stream = UnixStream::connect(socket);
    let late = || CallError::Late {
        method,
        socket: socket.to_owned(),
        deadline,
    };
    let connect = |source| CallError::Connect {
        socket: socket.to_owned(),
        source,
    };
    let work = async {
        let stream = stream.await.map_err(connect)?;
        exchange(stream, method, framed(request))
            .await
            .map_err(|fault| fault.of(method, socket))
    };
    let answer = timeout(deadline, work).await.map_err(|_| late())??;
    A::decode(answer).map_err(|error| {
        Fault::Status(Status::new(Code::INTERNAL, error.to_string())).of(method, socket)
    })
}

/// The messages that a method answers with, one by one; it ends when this is dropped.
#[derive(Debug)]
pub struct Subscription {
    body: h2::RecvStream,
    frames: Frames,
    _connection: JoinSet<()>,
}

/// Calls a method that takes one message and answers with many.
pub async fn subscribe(
    socket: &Path,
    method: &'static str,
    request: &impl Message,
    deadline: Duration,
) -> Result<Subscription, CallError> {
    let work = async {
        let connect = |source| CallError::Connect {
            socket: socket.to_owned(),
            source,
        };
        let stream = UnixStream::connect(socket).await.map_err(connect)?;
        begin(stream, method, framed(request))
            .await
            .map_err(|fault| fault.of(method, socket))
    };
    timeout(deadline, work).await.map_err(|_| CallError::Late {
        method,
        socket: socket.to_owned(),
        deadline,
    })?
}

impl Subscription {
    /// Returns the next message; `None` when the other side ended, or sent what makes no sense.
    pub async fn next<A: Message + Default>(&mut self) -> Option<A> {
        loop {
            if let Some(message) = self.frames.next().ok()? {
                return A::decode(message).ok();
            }
            let bytes = self.body.data().await?.ok()?;
            self.frames.push(&bytes);
            // It fails when the stream is closed, which the next read tells.
            let _closed = self.body.flow_control().release_capacity(bytes.len());
        }
    }
}

async fn begin(stream: UnixStream, method: &str, request: Bytes) -> Result<Subscription, Fault> {
    let (send, connection) = h2::client::handshake(stream).await?;
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        // How it ended is seen by who reads the body.
        let _ended = connection.await;
    });
    Ok(Subscription {
        body: send_request(send, method, request).await?.into_body(),
        frames: Frames::new(LARGEST_ANSWER),
        _connection: tasks,
    })
}

enum Fault {
    Http(h2::Error),
    Status(Status),
}

impl Fault {
    fn of(self, method: &'static str, socket: &Path) -> CallError {
        let socket = socket.to_owned();
        match self {
            Self::Http(source) => CallError::Broken {
                method,
                socket,
                source,
            },
            Self::Status(source) => CallError::Refused {
                method,
                socket,
                source,
            },
        }
    }
}

impl From<h2::Error> for Fault {
    fn from(error: h2::Error) -> Self {
        Self::Http(error)
    }
}

async fn exchange(stream: UnixStream, method: &str, request: Bytes) -> Result<Bytes, Fault> {
    let (send, connection) = h2::client::handshake(stream).await?;
    driven(connection, ask(send, method, request)).await
}

/// Does `work` while `connection` is kept going.
async fn driven<T>(
    connection: impl Future<Output = Result<(), h2::Error>>,
    work: impl Future<Output = Result<T, Fault>>,
) -> Result<T, Fault> {
    tokio::pin!(connection, work);
    tokio::select! {
        biased;
        done = &mut work => done,
        // The answer may have come with the end of the connection.
        ended = &mut connection => match ended {
            Err(error) => Err(error.into()),
            Ok(()) => work.await,
        },
    }
}

async fn send_request(
    send: h2::client::SendRequest<Bytes>,
    method: &str,
    request: Bytes,
) -> Result<Response<h2::RecvStream>, Fault> {
    let bad = |error: http::Error| Fault::Status(Status::new(Code::INTERNAL, error.to_string()));
    let head = Request::post(format!("http://localhost{method}"))
        .header(header::CONTENT_TYPE, "application/grpc")
        .header(header::TE, "trailers")
        .header(header::USER_AGENT, "virtfn")
        .body(())
        .map_err(bad)?;
    let mut send = send.ready().await?;
    let (response, mut body) = send.send_request(head, false)?;
    // `h2` keeps what there is no room for yet; requests are small.
    body.send_data(request, true)?;
    let response = response.await?;
    if response.status() != http::StatusCode::OK {
        let message = format!("HTTP status {}", response.status());
        return Err(Fault::Status(Status::new(Code::UNKNOWN, message)));
    }
    if let Some(status) = status(response.headers()).filter(|status| status.code != Code::OK) {
        return Err(Fault::Status(status));
    }
    Ok(response)
}

async fn ask(
    send: h2::client::SendRequest<Bytes>,
    method: &str,
    request: Bytes,
) -> Result<Bytes, Fault> {
    let mut body = send_request(send, method, request).await?.into_body();
    let mut frames = Frames::new(LARGEST_ANSWER);
    let mut answer = None;
    while let Some(bytes) = body.data().await {
        let bytes = bytes?;
        frames.push(&bytes);
        // It fails when the stream is closed, which the next read tells.
        let _closed = body.flow_control().release_capacity(bytes.len());
        answer = match answer {
            None => frames.next().map_err(Fault::Status)?,
            some => some,
        };
    }
    let trailers = body.trailers().await?;
    match trailers.as_ref().and_then(status) {
        Some(status) if status.code != Code::OK => Err(Fault::Status(status)),
        _ => answer
            .ok_or_else(|| Fault::Status(Status::new(Code::INTERNAL, "the answer has no message"))),
    }
}

fn status(headers: &HeaderMap) -> Option<Status> {
    let code = headers.get("grpc-status")?;
    let message = headers.get("grpc-message");
    let message = message.map_or(&b""[..], |message| message.as_bytes());
    Some(Status::from_headers(code.as_bytes(), message))
}
