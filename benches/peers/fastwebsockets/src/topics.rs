//! What both servers have alike: the address on the command line, one thread, and topics by path.

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex};

use tokio::net::TcpListener;
use tokio::sync::broadcast::{self, Receiver, Sender};

/// Publications that may wait for a subscriber. One that lags further loses them.
const WAITING_MAX: usize = 4096;

/// The topics that there are.
pub struct Topics<T>(Arc<Mutex<HashMap<String, Sender<T>>>>);

impl<T> Default for Topics<T> {
    fn default() -> Topics<T> {
        Topics(Arc::default())
    }
}

impl<T> Clone for Topics<T> {
    fn clone(&self) -> Topics<T> {
        Topics(Arc::clone(&self.0))
    }
}

impl<T: Clone> Topics<T> {
    /// The way into a topic, and the way out of it.
    pub fn subscribe(&self, path: &str) -> (Sender<T>, Receiver<T>) {
        let mut topics = self.0.lock().expect("nobody panics with it");
        let sender = topics
            .entry(path.to_owned())
            .or_insert_with(|| broadcast::channel(WAITING_MAX).0)
            .clone();
        let receiver = sender.subscribe();
        (sender, receiver)
    }
}

/// Listens on the address that the command line names, and serves on this thread only.
pub fn run<F>(serve: impl FnOnce(TcpListener) -> F) -> io::Result<()>
where
    F: Future<Output = io::Result<()>>,
{
    let address = std::env::args().nth(1).expect("ADDRESS:PORT to listen on");
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build()?;
    runtime.block_on(async move {
        // The backlog is the standard library's, 128, unless it is said otherwise.
        let socket = tokio::net::TcpSocket::new_v4()?;
        socket.set_reuseaddr(true)?;
        socket.bind(address.parse().expect("an address and a port"))?;
        serve(socket.listen(4096)?).await
    })
}
