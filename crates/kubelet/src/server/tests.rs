use std::path::{Path, PathBuf};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::*;
use crate::deviceplugin::{Device, Empty, ListAndWatchResponse};
use crate::registration::PluginInfo;
use crate::{CallError, call};

/// Answers as a test wants it, by method.
#[derive(Clone)]
struct Echo;

impl Handler for Echo {
    async fn call(self, path: String, request: Bytes, reply: Reply) {
        match path.as_str() {
            "/echo" => {
                let info = PluginInfo::decode(request);
                reply
                    .send(
                        info.map_err(|error| {
                            Status::new(Code::INVALID_ARGUMENT, error.to_string())
                        }),
                    )
                    .await;
            }
            "/large" => {
                let device = Device {
                    id: "x".repeat(60),
                    ..Device::default()
                };
                let list = ListAndWatchResponse {
                    devices: vec![device; 4096],
                };
                reply.send(Ok(list)).await;
            }
            "/never" => std::future::pending().await,
            _ => {
                let status = Status::new(Code::UNIMPLEMENTED, format!("no {path}"));
                reply.send(Err::<Empty, _>(status)).await;
            }
        }
    }
}

struct Served {
    _dir: tempfile::TempDir,
    socket: PathBuf,
    stopper: Option<Stopper>,
    tasks: JoinSet<()>,
}

fn served() -> Served {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("plugin.sock");
    let listener = UnixListener::bind(&socket).unwrap();
    let (stopper, stop) = stopper();
    let mut tasks = JoinSet::new();
    tasks.spawn(serve(listener, Echo, stop));
    Served {
        _dir: dir,
        socket,
        stopper: Some(stopper),
        tasks,
    }
}

const SOON: Duration = Duration::from_secs(20);

fn info(name: &str) -> PluginInfo {
    PluginInfo {
        name: name.to_owned(),
        ..PluginInfo::default()
    }
}

async fn echo(socket: &Path, name: &str) -> Result<PluginInfo, CallError> {
    call(socket, "/echo", &info(name), SOON).await
}

#[tokio::test]
async fn calls_are_answered_and_failures_told() {
    let served = served();
    assert_eq!(echo(&served.socket, "a").await.unwrap().name, "a");
    let large: ListAndWatchResponse = call(&served.socket, "/large", &Empty {}, SOON)
        .await
        .unwrap();
    assert_eq!(large.devices.len(), 4096);
    let error = call::<Empty>(&served.socket, "/other", &Empty {}, SOON)
        .await
        .unwrap_err();
    let CallError::Refused { source, .. } = error else {
        panic!("{error}");
    };
    assert_eq!(source, Status::new(Code::UNIMPLEMENTED, "no /other"));
}

#[tokio::test]
async fn nobody_and_somebody_slow_are_told_apart() {
    let served = served();
    let nobody = echo(&served.socket.with_extension("gone"), "a").await;
    assert!(matches!(nobody, Err(CallError::Connect { .. })));
    let deadline = Duration::from_millis(50);
    let slow = call::<Empty>(&served.socket, "/never", &Empty {}, deadline).await;
    assert!(matches!(slow, Err(CallError::Late { .. })));
}

/// Sends the bytes of a request with the `:authority` of the kubelet's plugin watcher.
async fn status_with_authority(socket: &Path, authority: &str) -> Vec<u8> {
    let mut stream = UnixStream::connect(socket).await.unwrap();
    let mut block = vec![0x83, 0x86, 0x44, 5];
    block.extend(b"/echo");
    block.push(0x41);
    // Lengths of 127 and more would need a second byte.
    block.push(u8::try_from(authority.len()).unwrap());
    block.extend(authority.bytes());
    block.extend([0x5f, 16]);
    block.extend(b"application/grpc");
    let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    bytes.extend([0, 0, 0, 4, 0, 0, 0, 0, 0]);
    let head = |kind: u8, flags: u8, length: usize| {
        [0, 0, u8::try_from(length).unwrap(), kind, flags, 0, 0, 0, 1]
    };
    bytes.extend(head(1, 4, block.len()));
    bytes.extend(block);
    bytes.extend(head(0, 1, 5));
    bytes.extend([0; 5]);
    stream.write_all(&bytes).await.unwrap();
    // Read frames until our stream ends; return the type of the first on it.
    let mut kinds = Vec::new();
    loop {
        let mut head = [0; 9];
        if stream.read_exact(&mut head).await.is_err() {
            return kinds;
        }
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        let mut payload = vec![0; length];
        stream.read_exact(&mut payload).await.unwrap();
        if head[8] == 1 {
            kinds.push(head[3]);
            if head[3] == 3 || head[4] & 1 == 1 {
                return kinds;
            }
        }
    }
}

/// A HEADERS frame (1), a DATA frame (0) and trailers; not RST_STREAM (3).
#[tokio::test]
async fn the_authority_of_the_plugin_watcher_is_taken() {
    let served = served();
    for authority in [
        "%2Fvar%2Flib%2Fkubelet%2Fplugins_registry%2Fintel.com_sriov_a.sock",
        "/var/lib/kubelet/plugins_registry/intel.com_sriov_a.sock",
        "localhost",
    ] {
        let kinds = timeout(SOON, status_with_authority(&served.socket, authority)).await;
        assert_eq!(kinds.unwrap(), [1, 0, 1], "{authority}");
    }
}

#[tokio::test]
async fn a_stopped_server_ends_although_a_call_does_not() {
    let mut served = served();
    let socket = served.socket.clone();
    let mut callers = JoinSet::new();
    callers.spawn(async move { call::<Empty>(&socket, "/never", &Empty {}, SOON).await });
    // The call is under way once a later one was answered.
    echo(&served.socket, "a").await.unwrap();
    drop(served.stopper.take());
    let ended = timeout(SOON, served.tasks.join_next()).await.unwrap();
    assert!(ended.is_some());
    let broken = timeout(SOON, callers.join_next()).await.unwrap();
    assert!(broken.unwrap().unwrap().is_err());
}
