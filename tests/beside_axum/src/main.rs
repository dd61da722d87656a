//! Umbel beside axum: one process, a port each, and neither waits for the other.
//!
//! axum takes orders, as it takes everything else of a program; Umbel pushes them to whoever subscribes to `orders/{id}`, by
//! WebSocket or as an event stream. A task of tokio's counts them, as it would write them to a database.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::Router;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::routing::{get, post};
use tokio::net::TcpListener;
use umbel::{Delivery, Handle, Message, Server, SubscribeOptions, Subscription};

#[derive(Clone)]
struct App {
    push: Handle,
    counted: Arc<AtomicUsize>,
}

/// `publish` never blocks, so a task may call it as it is.
async fn order(State(app): State<App>, Path(id): Path<String>, body: String) -> StatusCode {
    match app
        .push
        .publish(&format!("orders/{id}"), Message::Text(&body))
    {
        Ok(()) => StatusCode::ACCEPTED,
        Err(error) => {
            eprintln!("an order was not pushed: {error}");
            StatusCode::SERVICE_UNAVAILABLE
        }
    }
}

async fn count(State(app): State<App>) -> String {
    app.counted.load(Ordering::Relaxed).to_string()
}

/// Counts orders until the server ends. While there is none, the task waits and no thread does.
async fn count_orders(mut orders: Subscription, counted: Arc<AtomicUsize>) {
    while let Ok(delivery) = orders.next().await {
        match delivery {
            Delivery::Publication(_) => {
                counted.fetch_add(1, Ordering::Relaxed);
            }
            Delivery::Gap { missed } => eprintln!("{missed} orders came too fast to count"),
            _ => {}
        }
    }
}

/// Serves both until axum ends, and then ends Umbel.
async fn serve(web: TcpListener, push: SocketAddr) -> Result<(), Box<dyn std::error::Error>> {
    let server = Server::builder().listen(push).bind()?.spawn()?;
    let app = App {
        push: server.handle(),
        counted: Arc::default(),
    };
    let orders = app
        .push
        .subscribe_pattern("orders/*", SubscribeOptions::new())?;
    tokio::spawn(count_orders(orders, Arc::clone(&app.counted)));
    let router = Router::new()
        .route("/orders/{id}", post(order))
        .route("/count", get(count))
        .with_state(app);
    println!(
        "orders by POST to http://{}/orders/{{id}}",
        web.local_addr()?
    );
    println!("pushed at http://{}/sse/orders/{{id}}", server.local_addr());
    axum::serve(web, router).await?;
    // It waits for those who are connected, so it is no call for a task.
    tokio::task::spawn_blocking(|| server.shutdown()).await??;
    Ok(())
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let web = TcpListener::bind("127.0.0.1:8000").await?;
    serve(web, "127.0.0.1:8080".parse()?).await
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;
    use tokio::time::{sleep, timeout};

    use super::*;

    /// The time that anything which should happen at once is given on a busy machine.
    const PATIENCE: Duration = Duration::from_secs(10);

    /// An address of this machine that nobody has at the moment.
    async fn free_address() -> SocketAddr {
        let socket = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        socket.local_addr().expect("it is bound")
    }

    async fn send(address: SocketAddr, request: &str) -> TcpStream {
        let connect = async {
            loop {
                match TcpStream::connect(address).await {
                    Ok(stream) => return stream,
                    Err(_) => sleep(Duration::from_millis(1)).await,
                }
            }
        };
        let mut stream = timeout(PATIENCE, connect).await.expect("it listens");
        let sent = stream.write_all(request.as_bytes()).await;
        sent.expect("it is connected");
        stream
    }

    /// Reads until a text has come.
    async fn expect(stream: &mut TcpStream, text: &str) {
        let mut got = String::new();
        let read = async {
            while !got.contains(text) {
                let mut bytes = [0; 4096];
                let count = stream.read(&mut bytes).await.expect("it is connected");
                assert_ne!(count, 0, "{got}");
                got.push_str(&String::from_utf8_lossy(&bytes[..count]));
            }
        };
        let outcome = timeout(PATIENCE, read).await;
        assert!(outcome.is_ok(), "no {text:?} in {got}");
    }

    /// All of it on one thread of tokio's: whatever blocked that would block the client too.
    #[tokio::test(flavor = "current_thread")]
    async fn orders_are_pushed_and_counted() {
        let (web, push) = (TcpListener::bind("127.0.0.1:0").await, free_address().await);
        let web = web.expect("a free port");
        let address = web.local_addr().expect("it is bound");
        tokio::spawn(async move {
            let outcome = serve(web, push).await;
            outcome.expect("it serves until the end");
        });
        let ticks = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&ticks);
        tokio::spawn(async move {
            loop {
                sleep(Duration::from_millis(1)).await;
                counted.fetch_add(1, Ordering::Relaxed);
            }
        });
        let request = "GET /sse/orders/7 HTTP/1.1\r\nHost: localhost\r\n\r\n";
        let mut reader = send(push, request).await;
        expect(&mut reader, "text/event-stream").await;
        for order in ["one tea", "two teas", "three teas"] {
            let length = order.len();
            let head = "POST /orders/7 HTTP/1.1\r\nHost: localhost\r\nContent-Length:";
            let mut poster = send(address, &format!("{head} {length}\r\n\r\n{order}")).await;
            expect(&mut poster, "202 Accepted").await;
            expect(&mut reader, order).await;
        }
        let count = async {
            loop {
                let request = "GET /count HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
                let mut answer = String::new();
                let mut stream = send(address, request).await;
                stream.read_to_string(&mut answer).await.expect("an answer");
                if answer.ends_with("\r\n\r\n3") {
                    return;
                }
            }
        };
        timeout(PATIENCE, count).await.expect("all are counted");
        // Nothing comes, the subscription waits, and the thread is free.
        let before = ticks.load(Ordering::Relaxed);
        sleep(Duration::from_millis(200)).await;
        let after = ticks.load(Ordering::Relaxed);
        assert!(after - before > 20, "{} ticks in 200 ms", after - before);
    }
}
