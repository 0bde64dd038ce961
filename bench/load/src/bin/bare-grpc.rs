//! The least that a gRPC server made with tonic does: reads each unary call's message and answers the same message to all of them.
//!
//! `bare-grpc THREADS ANSWER_FILE` takes a free port on loopback and prints its address as a line. It has tonic's handler of calls on
//! hyper's HTTP/2, without the layers of tonic's own server, and threads as `bare` has them.

use std::error::Error;
use std::future::{Ready, ready};

use bytes::{Buf, BufMut, Bytes};
use headrace_load::{Connection, serve_connections};
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::TokioExecutor;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::server::{Grpc, UnaryService};
use tonic::{Request, Response, Status};

fn main() -> Result<(), Box<dyn Error + Send + Sync>> {
    let mut arguments = std::env::args().skip(1);
    let threads = arguments.next().ok_or("THREADS is missing")?.parse()?;
    let answer = Bytes::from(std::fs::read(arguments.next().ok_or("ANSWER_FILE is missing")?)?);
    serve_connections(threads, move |connection| serve(connection, answer.clone()))
}

async fn serve(connection: Connection, answer: Bytes) {
    let service = service_fn(|request: hyper::Request<Incoming>| {
        let answer = answer.clone();
        async move { Ok::<_, Status>(Grpc::new(Messages).unary(Same(answer), request).await) }
    });
    // A client that goes ends its connection only.
    drop(http2::Builder::new(TokioExecutor::new()).serve_connection(connection, service).await);
}

/// Answers every message with the same.
struct Same(Bytes);

impl UnaryService<Bytes> for Same {
    type Response = Bytes;
    type Future = Ready<Result<Response<Bytes>, Status>>;

    fn call(&mut self, _: Request<Bytes>) -> Self::Future {
        ready(Ok(Response::new(self.0.clone())))
    }
}

/// Messages as they are, not decoded.
#[derive(Debug, Clone, Copy)]
struct Messages;

impl Codec for Messages {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Messages {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, message: Bytes, out: &mut EncodeBuf<'_>) -> Result<(), Status> {
        out.put(message);
        Ok(())
    }
}

impl Decoder for Messages {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, message: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(message.copy_to_bytes(message.remaining())))
    }
}
