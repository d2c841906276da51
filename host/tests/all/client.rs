//! A small blocking HTTP/1 client on a raw socket: a test must be able to send what no library
//! would, byte by byte, and to see exactly what comes back.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::Duration;

use crate::process::PATIENCE;

/// An answer, as it came.
#[derive(Debug, Default, Clone)]
pub(crate) struct Response {
    /// `HTTP/1.1`
    pub(crate) version: String,
    /// The status.
    pub(crate) status: u16,
    /// Names as sent, values trimmed.
    pub(crate) headers: Vec<(String, String)>,
    /// The body, chunks joined.
    pub(crate) body: Vec<u8>,
    /// The statuses of the 1xx answers that came before.
    pub(crate) informational: Vec<u16>,
}

impl Response {
    /// The values of a header, joined by `, `.
    pub(crate) fn header(&self, name: &str) -> Option<String> {
        let values: Vec<&str> = self
            .headers
            .iter()
            .filter(|(own, _)| own.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
            .collect();
        (!values.is_empty()).then(|| values.join(", "))
    }

    /// The body as text.
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// One connection.
pub(crate) struct Client {
    stream: TcpStream,
    unread: Vec<u8>,
}

impl Client {
    /// Connects to a port of 127.0.0.1.
    pub(crate) fn connect(port: u16) -> Self {
        let stream = TcpStream::connect(("127.0.0.1", port))
            .unwrap_or_else(|error| panic!("cannot connect to port {port}: {error}"));
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        Self {
            stream,
            unread: Vec::new(),
        }
    }

    /// Sends bytes as they are. A server may close before it has read all (413): no fault here.
    pub(crate) fn send(&mut self, bytes: impl AsRef<[u8]>) {
        if let Err(error) = self.stream.write_all(bytes.as_ref()) {
            assert!(
                matches!(
                    error.kind(),
                    ErrorKind::BrokenPipe | ErrorKind::ConnectionReset
                ),
                "cannot send: {error}"
            );
        }
    }

    /// Says that nothing more will be sent.
    pub(crate) fn shutdown(&self) {
        self.stream.shutdown(Shutdown::Write).ok();
    }

    /// Sends a GET and reads its answer, the connection staying open.
    pub(crate) fn get(&mut self, path: &str) -> Result<Response, String> {
        self.send(format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n"));
        self.response(false)
    }

    /// Reads one answer; `headless` when it answers HEAD and so has no body.
    pub(crate) fn response(&mut self, headless: bool) -> Result<Response, String> {
        let mut informational = Vec::new();
        loop {
            let mut response = self.head()?;
            if response.status / 100 == 1 && response.status != 101 {
                informational.push(response.status);
                continue;
            }
            response.informational = informational;
            if !(headless || matches!(response.status, 101 | 204 | 304)) {
                response.body = self.body(&response)?;
            }
            return Ok(response);
        }
    }

    fn head(&mut self) -> Result<Response, String> {
        let line = self.line()?;
        let mut words = line.splitn(3, ' ');
        let mut response = Response {
            version: words.next().unwrap_or_default().to_owned(),
            status: words
                .next()
                .and_then(|word| word.parse().ok())
                .ok_or_else(|| format!("not a status line: {line:?}"))?,
            ..Response::default()
        };
        loop {
            let line = self.line()?;
            if line.is_empty() {
                return Ok(response);
            }
            let (name, value) = line
                .split_once(':')
                .ok_or_else(|| format!("not a header: {line:?}"))?;
            response
                .headers
                .push((name.to_owned(), value.trim().to_owned()));
        }
    }

    fn body(&mut self, response: &Response) -> Result<Vec<u8>, String> {
        let chunked = response
            .header("transfer-encoding")
            .is_some_and(|value| value.to_ascii_lowercase().contains("chunked"));
        if chunked {
            return self.chunks();
        }
        match response.header("content-length") {
            Some(length) => self.exactly(
                length
                    .parse()
                    .map_err(|_| format!("content-length: {length:?}"))?,
            ),
            None => {
                while self.fill()? > 0 {}
                Ok(std::mem::take(&mut self.unread))
            }
        }
    }

    fn chunks(&mut self) -> Result<Vec<u8>, String> {
        let mut body = Vec::new();
        loop {
            let line = self.line()?;
            let size = line.split(';').next().unwrap_or_default().trim();
            let size = usize::from_str_radix(size, 16)
                .map_err(|_| format!("not the size of a chunk: {line:?}"))?;
            if size == 0 {
                // Trailers, then an empty line.
                while !self.line()?.is_empty() {}
                return Ok(body);
            }
            body.extend(self.exactly(size)?);
            let end = self.line()?;
            if !end.is_empty() {
                return Err(format!("after a chunk: {end:?}"));
            }
        }
    }

    fn line(&mut self) -> Result<String, String> {
        loop {
            if let Some(end) = self.unread.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.unread.drain(..=end).collect();
                let line = String::from_utf8_lossy(&line);
                return Ok(line.trim_end_matches(['\r', '\n']).to_owned());
            }
            if self.fill()? == 0 {
                return Err(format!(
                    "closed; unread: {:?}",
                    String::from_utf8_lossy(&self.unread)
                ));
            }
        }
    }

    fn exactly(&mut self, length: usize) -> Result<Vec<u8>, String> {
        while self.unread.len() < length {
            if self.fill()? == 0 {
                return Err(format!(
                    "closed after {} of {length} bytes",
                    self.unread.len()
                ));
            }
        }
        Ok(self.unread.drain(..length).collect())
    }

    fn fill(&mut self) -> Result<usize, String> {
        let mut buffer = vec![0; 64 * 1024];
        let read = self
            .stream
            .read(&mut buffer)
            .map_err(|error| format!("reading: {error}"))?;
        self.unread.extend_from_slice(&buffer[..read]);
        Ok(read)
    }

    /// Whether the server closes within the time, with nothing left to read.
    pub(crate) fn closed_within(&mut self, patience: Duration) -> bool {
        self.stream.set_read_timeout(Some(patience)).unwrap();
        let mut byte = [0];
        let closed = self.unread.is_empty()
            && match self.stream.read(&mut byte) {
                Ok(read) => read == 0,
                Err(error) => error.kind() == ErrorKind::ConnectionReset,
            };
        self.stream.set_read_timeout(Some(PATIENCE)).unwrap();
        closed
    }
}

/// One GET on a connection of its own.
pub(crate) fn get(port: u16, path: &str) -> Response {
    Client::connect(port)
        .get(path)
        .unwrap_or_else(|error| panic!("GET {path}: {error}"))
}
