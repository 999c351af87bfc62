//! A gRPC server on a unix socket.
//!
//! One task a connection, one a call; all end with the server. A [`Handler`] gets the method and the
//! bytes of the one message that every method here begins with, and a [`Reply`].

use std::future::{Future, poll_fn};
use std::time::Duration;

use bytes::Bytes;
use h2::server::SendResponse;
use h2::{RecvStream, SendStream};
use http::{HeaderMap, HeaderValue, Request, Response, header};
use prost::Message;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tracing::debug;

use crate::authority::PlainAuthority;
use crate::grpc::{Code, Frames, Status, framed};

/// Largest request: Allocate names each device in some 15 bytes, and the kubelet keeps to 4 MiB.
const LARGEST_REQUEST: usize = 4 * 1024 * 1024;

/// Most connections at once. The kubelet has one or two, a person's tool another.
const MOST_CONNECTIONS: usize = 32;

/// Most calls at once on a connection: one ListAndWatch, and an Allocate for each pod of a burst.
const MOST_CALLS: u32 = 256;

/// Largest header block. The kubelet's have some 200 bytes.
const LARGEST_HEADERS: u32 = 16 * 1024;

/// How long a peer may take to begin HTTP/2, or to send a request that it began.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long calls may go on after the server was stopped. An orderly stop takes two seconds at most.
const GRACE: Duration = Duration::from_secs(1);

/// Answers calls.
pub trait Handler: Clone + Send + 'static {
    /// Answers one call of method `path`, such as `/v1beta1.DevicePlugin/Allocate`.
    fn call(self, path: String, request: Bytes, reply: Reply) -> impl Future<Output = ()> + Send;
}

/// Ends a server when it is dropped.
#[derive(Debug)]
pub struct Stopper {
    _open: watch::Sender<()>,
}

/// Tells that a [`Stopper`] was dropped.
#[derive(Clone, Debug)]
pub struct Stop(watch::Receiver<()>);

/// Returns what ends servers, and what tells them.
#[must_use]
pub fn stopper() -> (Stopper, Stop) {
    let (open, stop) = watch::channel(());
    (Stopper { _open: open }, Stop(stop))
}

impl Stop {
    /// Waits for it.
    pub async fn stopped(&mut self) {
        // Nothing is ever sent, so this ends when the sender goes.
        while self.0.changed().await.is_ok() {}
    }
}

/// Serves until it is stopped. Calls then have a second to end.
pub async fn serve(listener: UnixListener, handler: impl Handler, mut stop: Stop) {
    let mut connections = JoinSet::new();
    let told = stop.clone();
    loop {
        tokio::select! {
            () = stop.stopped() => break,
            Some(_ended) = connections.join_next() => {}
            accepted = listener.accept(), if connections.len() < MOST_CONNECTIONS => match accepted {
                Ok((stream, _)) => {
                    connections.spawn(serve_connection(stream, handler.clone(), told.clone()));
                }
                // Out of descriptors, most likely: the peer is still queued, so wait for one to end.
                Err(error) => {
                    debug!(%error, "a connection was not accepted");
                    tokio::time::sleep(GRACE).await;
                }
            },
        }
    }
    drop(listener);
    let ended = async { while connections.join_next().await.is_some() {} };
    if timeout(GRACE, ended).await.is_err() {
        connections.shutdown().await;
    }
}

async fn serve_connection(stream: UnixStream, handler: impl Handler, mut stop: Stop) {
    let mut builder = h2::server::Builder::new();
    builder
        .max_concurrent_streams(MOST_CALLS)
        .max_header_list_size(LARGEST_HEADERS);
    let handshake = builder.handshake::<_, Bytes>(PlainAuthority::new(stream));
    let Ok(Ok(mut connection)) = timeout(PATIENCE, handshake).await else {
        return;
    };
    let mut calls = JoinSet::new();
    let mut stopping = false;
    loop {
        tokio::select! {
            () = stop.stopped(), if !stopping => {
                stopping = true;
                connection.graceful_shutdown();
            }
            Some(_ended) = calls.join_next() => {}
            accepted = connection.accept() => match accepted {
                Some(Ok((request, respond))) => {
                    calls.spawn(answer(request, respond, handler.clone()));
                }
                Some(Err(error)) => {
                    debug!(%error, "a connection broke");
                    return;
                }
                None => return,
            },
        }
    }
}

async fn answer(request: Request<RecvStream>, respond: SendResponse<Bytes>, handler: impl Handler) {
    let path = request.uri().path().to_owned();
    let reply = Reply { respond };
    match timeout(PATIENCE, read_request(request)).await {
        Ok(Ok(message)) => handler.call(path, message, reply).await,
        Ok(Err(status)) => reply.fail(&status),
        Err(_) => reply.fail(&Status::new(
            Code::DEADLINE_EXCEEDED,
            "the request did not come whole",
        )),
    }
}

/// Reads the one message of a request.
async fn read_request(request: Request<RecvStream>) -> Result<Bytes, Status> {
    let kind = request.headers().get(header::CONTENT_TYPE);
    if !kind.is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc")) {
        return Err(Status::new(Code::INTERNAL, "this is no gRPC"));
    }
    let mut body = request.into_body();
    let mut frames = Frames::new(LARGEST_REQUEST);
    loop {
        if let Some(message) = frames.next()? {
            return Ok(message);
        }
        match body.data().await {
            Some(Ok(bytes)) => {
                frames.push(&bytes);
                // It fails when the stream is closed, which the next read tells.
                let _closed = body.flow_control().release_capacity(bytes.len());
            }
            Some(Err(error)) => return Err(Status::new(Code::UNKNOWN, error.to_string())),
            None => return Err(Status::new(Code::INTERNAL, "the request has no message")),
        }
    }
}

/// Where the answer to a call goes.
#[derive(Debug)]
pub struct Reply {
    respond: SendResponse<Bytes>,
}

impl Reply {
    /// Answers with one message, or says why not. A peer that went is nobody's business.
    pub async fn send(self, answer: Result<impl Message, Status>) {
        let message = match answer {
            Ok(message) => framed(&message),
            Err(status) => return self.fail(&status),
        };
        if let Ok(mut updates) = self.stream() {
            let sent = timeout(PATIENCE, updates.send_frame(message)).await;
            if matches!(sent, Ok(Ok(()))) {
                updates.end();
            }
        }
    }

    /// Begins to answer with any number of messages.
    pub fn stream(mut self) -> Result<Updates, h2::Error> {
        let stream = self.respond.send_response(head(), false)?;
        Ok(Updates { stream })
    }

    fn fail(mut self, status: &Status) {
        let mut head = head();
        set_status(head.headers_mut(), status.code, &status.escaped_message());
        // The peer may be gone.
        let _gone = self.respond.send_response(head, true);
    }
}

/// An answer of many messages.
#[derive(Debug)]
pub struct Updates {
    stream: SendStream<Bytes>,
}

impl Updates {
    /// Sends a message when the peer has room for it. An error means that the peer went.
    pub async fn send(&mut self, message: &impl Message) -> Result<(), h2::Error> {
        self.send_frame(framed(message)).await
    }

    /// Waits until the peer goes.
    pub async fn closed(&mut self) {
        let _reason = poll_fn(|context| self.stream.poll_reset(context)).await;
    }

    /// Ends the answer in good order.
    pub fn end(mut self) {
        let mut trailers = HeaderMap::new();
        set_status(&mut trailers, Code::OK, "");
        // The peer may be gone.
        let _gone = self.stream.send_trailers(trailers);
    }

    async fn send_frame(&mut self, mut bytes: Bytes) -> Result<(), h2::Error> {
        while !bytes.is_empty() {
            self.stream.reserve_capacity(bytes.len());
            let room = match poll_fn(|context| self.stream.poll_capacity(context)).await {
                Some(room) => room?,
                None => return Err(h2::Reason::CANCEL.into()),
            };
            if room > 0 {
                let part = bytes.split_to(room.min(bytes.len()));
                self.stream.send_data(part, false)?;
            }
        }
        Ok(())
    }
}

fn head() -> Response<()> {
    let mut head = Response::new(());
    let grpc = HeaderValue::from_static("application/grpc");
    head.headers_mut().insert(header::CONTENT_TYPE, grpc);
    head
}

fn set_status(headers: &mut HeaderMap, code: Code, message: &str) {
    headers.insert("grpc-status", HeaderValue::from(u16::from(code.number())));
    if let Ok(message) = HeaderValue::from_str(message) {
        headers.insert("grpc-message", message);
    }
}

#[cfg(test)]
mod tests;
