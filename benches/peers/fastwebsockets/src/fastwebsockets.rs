//! A server made of fastwebsockets, on one thread: `/echo` sends each message back, `/ws/...` are topics.
//!
//! The echo is the loop of the crate's own example. A subscriber is a task that waits on tokio's broadcast channel, the
//! usual way to fan out with tokio; what waits for it leaves in one write, by a `BufWriter` that is flushed when the
//! channel is empty. Connections are the plain TCP streams under hyper's upgrade, which saves an indirection.
//!
//! ```sh
//! fastwebsockets-server 127.0.0.1:9300
//! ```

mod topics;

use std::io;

use fastwebsockets::{
    FragmentCollector, FragmentCollectorRead, Frame, OpCode, Payload, Role, WebSocket,
    WebSocketError, WebSocketWrite, after_handshake_split, upgrade,
};
use http_body_util::Empty;
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::io::BufWriter;
use tokio::net::tcp::OwnedWriteHalf;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::broadcast::Receiver;
use topics::Topics;

/// A publication: whether it is text, and its payload.
type Publication = (bool, Bytes);

fn main() -> io::Result<()> {
    topics::run(serve)
}

async fn serve(listener: TcpListener) -> io::Result<()> {
    let topics = Topics::default();
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let topics = topics.clone();
        tokio::spawn(async move {
            let service = service_fn(|request| answer(request, topics.clone()));
            let connection = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
            // A connection that breaks off is the load generator's to count.
            let _ = connection.with_upgrades().await;
        });
    }
}

async fn answer(
    mut request: Request<Incoming>,
    topics: Topics<Publication>,
) -> Result<Response<Empty<Bytes>>, WebSocketError> {
    let path = request.uri().path().to_owned();
    let (response, upgraded) = upgrade::upgrade(&mut request)?;
    tokio::spawn(async move {
        let stream = upgraded.await?.into_inner().into_inner();
        let parts = stream.downcast::<TokioIo<TcpStream>>();
        let stream = parts.expect("it was accepted as one").io.into_inner();
        match path.as_str() {
            "/echo" => echo(stream).await,
            path => take_part(stream, path, &topics).await,
        }
    });
    Ok(response)
}

async fn echo(stream: TcpStream) -> Result<(), WebSocketError> {
    let websocket = WebSocket::after_handshake(stream, Role::Server);
    let mut websocket = FragmentCollector::new(websocket);
    // As in the crate's example: tokio's budget is for tasks that starve others.
    tokio::task::unconstrained(async move {
        loop {
            let frame = websocket.read_frame().await?;
            match frame.opcode {
                OpCode::Close => return Ok(()),
                OpCode::Text | OpCode::Binary => websocket.write_frame(frame).await?,
                _ => {}
            }
        }
    })
    .await
}

async fn take_part(
    stream: TcpStream,
    path: &str,
    topics: &Topics<Publication>,
) -> Result<(), WebSocketError> {
    let (publications, inbox) = topics.subscribe(path);
    let (read, write) = stream.into_split();
    let (read, write) = after_handshake_split(read, BufWriter::new(write), Role::Server);
    let deliveries = tokio::spawn(deliver(write, inbox));
    let mut read = FragmentCollectorRead::new(read);
    // The writing task owns the other half, and the load generator sends no ping.
    let mut discard = |_| async { Ok::<_, io::Error>(()) };
    while let Ok(frame) = read.read_frame(&mut discard).await {
        match frame.opcode {
            OpCode::Close => break,
            OpCode::Text | OpCode::Binary => {
                let is_text = frame.opcode == OpCode::Text;
                let _ = publications.send((is_text, Bytes::copy_from_slice(&frame.payload)));
            }
            _ => {}
        }
    }
    deliveries.abort();
    Ok(())
}

/// Sends publications until the connection ends, or does not keep up with its topic.
async fn deliver(
    mut write: WebSocketWrite<BufWriter<OwnedWriteHalf>>,
    mut inbox: Receiver<Publication>,
) -> Result<(), WebSocketError> {
    while let Ok(first) = inbox.recv().await {
        let mut next = Some(first);
        while let Some((is_text, payload)) = next {
            let opcode = if is_text {
                OpCode::Text
            } else {
                OpCode::Binary
            };
            let frame = Frame::new(true, opcode, None, Payload::Borrowed(&payload));
            write.write_frame(frame).await?;
            next = inbox.try_recv().ok();
        }
        write.flush().await?;
    }
    Ok(())
}
