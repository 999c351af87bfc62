//! gRPC with the kubelet, over unix sockets: the messages of its services, a server and a call.
//!
//! ```text
//! kubelet ── unix socket ─ authority ─ h2 ─ server ── path, bytes ─▶ Handler
//! kubelet ◀─ unix socket ───────────── h2 ─ client ◀── call()
//! ```
//!
//! The messages are the kubelet's own, field by field; nothing is decided here. What would surprise:
//!
//! - The kubelet's plugin watcher sends the percent-encoded path of the socket as `:authority`, which
//!   no Rust HTTP stack takes. [`authority`] replaces it in the bytes before HTTP/2 sees them.
//! - There is no tonic here. The kubelet has eight methods that matter to us, without TLS, routing,
//!   compression or deadlines, so gRPC is two small files over `h2`; a router and a second HTTP
//!   stack would cost more memory than all else that the agent does.

mod authority;
mod client;
pub mod deviceplugin;
mod grpc;
pub mod podresources;
pub mod registration;
mod server;

#[doc(hidden)]
pub mod fuzz;

pub use bytes::Bytes;
pub use client::{CallError, Subscription, call, subscribe};
pub use grpc::{Code, Status};
pub use prost::Message;
pub use server::{Handler, Reply, Stop, Stopper, Updates, serve, stopper};
