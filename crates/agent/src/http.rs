//! Health, metrics and state over HTTP/1.1: answers to `GET`, one a connection.
//!
//! Probes and Prometheus need no more than that, and it is off unless an address is given.

use std::fmt::Write as _;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::board::Board;
use crate::endpoint::Shared;

/// Most connections at once: a probe, a scraper and some people.
const MOST_CONNECTIONS: usize = 16;

/// Longest request head.
const LONGEST_HEAD: usize = 8 * 1024;

/// How long a client may take for everything.
const PATIENCE: Duration = Duration::from_secs(10);

/// Begins to listen.
pub(crate) fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let listener = std::net::TcpListener::bind(address)?;
    listener.set_nonblocking(true)?;
    TcpListener::from_std(listener)
}

/// Answers until the task is ended.
pub(crate) async fn serve(listener: TcpListener, board: Arc<Board>, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            Some(_ended) = connections.join_next() => {}
            accepted = listener.accept(), if connections.len() < MOST_CONNECTIONS => match accepted {
                Ok((stream, _)) => {
                    let (board, shared) = (Arc::clone(&board), Arc::clone(&shared));
                    connections.spawn(async move {
                        // A client that is slow or gone is nobody's business.
                        let _ended = timeout(PATIENCE, answer(stream, &board, &shared)).await;
                    });
                }
                // Out of descriptors: the client stays queued.
                Err(_) => tokio::time::sleep(Duration::from_secs(1)).await,
            },
        }
    }
}

async fn answer(mut stream: TcpStream, board: &Board, shared: &Shared) -> io::Result<()> {
    let mut head = Vec::new();
    while !head.windows(4).any(|end| end == b"\r\n\r\n") {
        let mut part = [0; 1024];
        let read = stream.read(&mut part).await?;
        if read == 0 || head.len() > LONGEST_HEAD {
            return Ok(());
        }
        head.extend_from_slice(part.get(..read).unwrap_or_default());
    }
    let line = head.split(|byte| *byte == b'\r').next().unwrap_or_default();
    let (status, body) = respond(&String::from_utf8_lossy(line), board, shared);
    let length = body.len();
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Type: text/plain; version=0.0.4; charset=utf-8\r\n\
         Content-Length: {length}\r\nConnection: close\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await?;
    stream.write_all(body.as_bytes()).await?;
    stream.shutdown().await
}

/// Answers one request line.
fn respond(line: &str, board: &Board, shared: &Shared) -> (&'static str, String) {
    let mut words = line.split(' ');
    if words.next() != Some("GET") {
        return ("405 Method Not Allowed", "only GET\n".to_owned());
    }
    let path = words.next().unwrap_or_default();
    match path.split('?').next().unwrap_or_default() {
        "/healthz" => ("200 OK", "ok\n".to_owned()),
        "/readyz" => match board.troubles() {
            troubles if troubles.is_empty() => ("200 OK", "ok\n".to_owned()),
            troubles => ("503 Service Unavailable", troubles.join("\n") + "\n"),
        },
        "/metrics" => ("200 OK", board.metrics(&shared.current())),
        "/debug/state" => ("200 OK", state(board, shared)),
        _ => {
            let known = "/healthz /readyz /metrics /debug/state\n";
            ("404 Not Found", known.to_owned())
        }
    }
}

/// Writes what the agent knows, for people.
fn state(board: &Board, shared: &Shared) -> String {
    let snapshot = shared.current();
    // What was given away since the snapshot was made counts too.
    let held = shared.beliefs().held();
    let mut text = String::new();
    // Writing to a string cannot fail, here and below.
    for trouble in board.troubles() {
        let _always = writeln!(text, "trouble: {trouble}");
    }
    for (pool, offer) in snapshot.pools.iter().zip(&snapshot.offer.pools) {
        let count = offer.devices.len();
        let _always = writeln!(
            text,
            "pool {} {}: {count} devices",
            pool.resource, pool.kind
        );
        for (id, device) in &offer.devices {
            let numa = device.numa.map_or("-".to_owned(), |numa| numa.to_string());
            let held = match held.resource_of(id) {
                Some(_) => ", held by a pod",
                None => "",
            };
            let (selector, health) = (device.selector, device.health);
            let _always = writeln!(
                text,
                "  {id} {health}, selector {selector}, numa {numa}{held}"
            );
        }
    }
    let seen = &snapshot.seen;
    let (functions, parts) = (seen.functions.len(), seen.sub_functions.len());
    let _always = writeln!(
        text,
        "inventory: {functions} functions, {parts} sub-functions"
    );
    for gap in &seen.gaps {
        let _always = writeln!(text, "gap {}: {}", gap.object, gap.reason);
    }
    text
}
