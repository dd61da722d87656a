//! A server made of tokio-tungstenite, on one thread: `/echo` sends each message back, `/ws/...` are topics.
//!
//! A subscriber is a task that waits on its connection and on tokio's broadcast channel; what waits for it is fed to
//! the connection and leaves in one flush.
//!
//! ```sh
//! tungstenite-server 127.0.0.1:9300
//! ```

mod topics;

use std::io;

use futures_util::{SinkExt, StreamExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::tungstenite::handshake::server::{Request, Response};
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{WebSocketStream, accept_hdr_async_with_config};
use topics::Topics;

/// The read buffer of a connection. The crate's default is 128 KiB, which only large messages need.
const READ_BUFFER_BYTES: usize = 8 * 1024;

fn main() -> io::Result<()> {
    topics::run(serve)
}

async fn serve(listener: TcpListener) -> io::Result<()> {
    let topics = Topics::default();
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        tokio::spawn(handle(stream, topics.clone()));
    }
}

async fn handle(stream: TcpStream, topics: Topics<Message>) -> Result<(), Error> {
    let mut path = String::new();
    #[allow(clippy::result_large_err, reason = "the crate's callback asks for it")]
    let keep_path = |request: &Request, response: Response| {
        path = request.uri().path().to_owned();
        Ok(response)
    };
    let config = WebSocketConfig::default().read_buffer_size(READ_BUFFER_BYTES);
    let websocket = accept_hdr_async_with_config(stream, keep_path, Some(config)).await?;
    match path.as_str() {
        "/echo" => echo(websocket).await,
        path => take_part(websocket, path, &topics).await,
    }
}

async fn echo(mut websocket: WebSocketStream<TcpStream>) -> Result<(), Error> {
    while let Some(message) = websocket.next().await {
        let message = message?;
        if message.is_text() || message.is_binary() {
            websocket.send(message).await?;
        }
    }
    Ok(())
}

async fn take_part(
    mut websocket: WebSocketStream<TcpStream>,
    path: &str,
    topics: &Topics<Message>,
) -> Result<(), Error> {
    let (publications, mut inbox) = topics.subscribe(path);
    loop {
        tokio::select! {
            message = websocket.next() => match message {
                None => return Ok(()),
                Some(Err(error)) => return Err(error),
                Some(Ok(message)) if message.is_text() || message.is_binary() => {
                    let _ = publications.send(message);
                }
                Some(Ok(_)) => {}
            },
            publication = inbox.recv() => {
                let mut next = publication.ok();
                if next.is_none() {
                    // It did not keep up with its topic.
                    return websocket.close(None).await;
                }
                while let Some(message) = next {
                    websocket.feed(message).await?;
                    next = inbox.try_recv().ok();
                }
                websocket.flush().await?;
            }
        }
    }
}
