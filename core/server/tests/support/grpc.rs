//! A gRPC client that speaks HTTP/2 through h2, so that it can also misuse it.

use std::net::SocketAddr;

use bytes::Bytes;
use h2::client::{ResponseFuture, SendRequest};
use h2::{RecvStream, SendStream};
use http::{HeaderMap, Request};
use tokio::net::TcpStream;
use tokio::runtime::Runtime;

pub struct GrpcClient {
    runtime: Runtime,
    send: SendRequest<Bytes>,
}

/// The end of a call: its messages, status, slug and reason.
#[derive(Debug)]
pub struct Reply {
    pub messages: Vec<Vec<u8>>,
    pub status: u8,
    pub code: String,
    pub reason: String,
    pub headers: HeaderMap,
}

impl GrpcClient {
    pub fn connect(addr: SocketAddr) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let send = runtime.block_on(async {
            let stream = TcpStream::connect(addr).await.unwrap();
            let (send, connection) = h2::client::handshake(stream).await.unwrap();
            tokio::spawn(async move { drop(connection.await) });
            send
        });
        Self { runtime, send }
    }

    /// Begins a call, and leaves its request open.
    pub fn open(
        &mut self,
        path: &str,
        headers: &[(&str, &str)],
    ) -> Result<(ResponseFuture, SendStream<Bytes>), h2::Error> {
        let mut request = Request::builder()
            .method("POST")
            .uri(format!("http://test{path}"))
            .header("content-type", "application/grpc")
            .header("te", "trailers");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(()).unwrap();
        let mut send = self.runtime.block_on(self.send.clone().ready())?;
        send.send_request(request, false)
    }

    pub fn block_on<T>(&self, future: impl Future<Output = T>) -> T {
        self.runtime.block_on(future)
    }

    /// Lets what was begun go out, and what comes meanwhile come in.
    pub fn rest(&self, milliseconds: u64) {
        let time = std::time::Duration::from_millis(milliseconds);
        self.runtime.block_on(async { tokio::time::sleep(time).await });
    }

    /// Sends a whole call and waits for its end.
    pub fn try_call(&mut self, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Result<Reply, h2::Error> {
        let (response, mut stream) = self.open(path, headers)?;
        // Fails where the answer came first.
        drop(stream.send_data(Bytes::copy_from_slice(body), true));
        self.runtime.block_on(reply_of(response))
    }

    pub fn call(&mut self, path: &str, message: &[u8]) -> Reply {
        self.try_call(path, &[], &framed(message)).unwrap()
    }
}

pub async fn reply_of(response: ResponseFuture) -> Result<Reply, h2::Error> {
    let (head, mut body) = response.await?.into_parts();
    let bytes = read_all(&mut body).await?;
    let trailers = body.trailers().await?.unwrap_or_else(|| head.headers.clone());
    let text = |name: &str| trailers.get(name).map_or("", |value| value.to_str().unwrap()).to_owned();
    let mut messages = Vec::new();
    let mut rest = &bytes[..];
    while let Some((head, after)) = rest.split_first_chunk::<5>() {
        let length = u32::from_be_bytes(*head[1..].first_chunk().unwrap()) as usize;
        messages.push(after[..length].to_vec());
        rest = &after[length..];
    }
    Ok(Reply {
        messages,
        status: text("grpc-status").parse().unwrap(),
        code: text("headrace-code"),
        reason: text("grpc-message"),
        headers: head.headers,
    })
}

async fn read_all(body: &mut RecvStream) -> Result<Vec<u8>, h2::Error> {
    let mut bytes = Vec::new();
    while let Some(data) = body.data().await {
        let data = data?;
        body.flow_control().release_capacity(data.len())?;
        bytes.extend_from_slice(&data);
    }
    Ok(bytes)
}

pub fn framed(message: &[u8]) -> Vec<u8> {
    let length = u32::try_from(message.len()).unwrap().to_be_bytes();
    [&[0][..], &length, message].concat()
}

/// A field of bytes.
pub fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
    let mut out = vec![number << 3 | 2];
    let mut length = bytes.len();
    while length >= 0x80 {
        out.push((length & 0x7f) as u8 | 0x80);
        length >>= 7;
    }
    out.push(length as u8);
    out.extend_from_slice(bytes);
    out
}

/// A ModelInferRequest with the raw tensor `features`.
pub fn infer(model: &str, shape: [u8; 2], values: &[f64]) -> Vec<u8> {
    let tensor = [field(1, b"features"), field(2, b"FP64"), field(3, &shape)].concat();
    let raw: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    [field(1, model.as_bytes()), field(5, &tensor), field(7, &raw)].concat()
}
