// SPDX-License-Identifier: MIT OR Apache-2.0

//! Servers at both ends of the redirection, which say who they are, and who asked what; and their
//! client.

use std::io::{self, BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::thread;
use std::time::Duration;

use anyhow::{ensure, Context, Result};
use nix::unistd::daemon;

use mutexlab_guest::net::namespace::Namespace;
use mutexlab_guest::proxy::context;
use mutexlab_guest::proxy::context::Rule;
use mutexlab_guest::traffic::target::PATIENCE;
use mutexlab_model::traffic::{Family, Protocol};
use mutexlab_protocol::addresses::{ORIGINAL, ORIGINAL_PORT, UPSTREAM, UPSTREAM_PORT};

const FAMILIES: [Family; 2] = [Family::V4, Family::V6];
const PROTOCOLS: [Protocol; 2] = [Protocol::Udp, Protocol::Tcp];

/// The longest question.
const QUESTION_MAX: usize = 1024;
/// What a server needs; the agent keeps all of it in memory.
const STACK: usize = 128 << 10;

/// Rules that redirect all that the servers can be asked.
pub fn rules() -> Vec<Rule> {
    let mut rules = Vec::new();
    for family in FAMILIES {
        let original = ORIGINAL.socket(family, ORIGINAL_PORT);
        let upstream = UPSTREAM.socket(family, UPSTREAM_PORT);
        rules.extend(PROTOCOLS.map(|protocol| context::redirect(protocol, original, upstream)));
    }
    rules
}

/// Has servers answer at the original destination and at the upstream, as long as this process
/// lives.
pub fn serve(server: &Namespace) -> Result<()> {
    for (name, host, port) in [
        ("original", ORIGINAL, ORIGINAL_PORT),
        ("upstream", UPSTREAM, UPSTREAM_PORT),
    ] {
        for family in FAMILIES {
            server
                .run(|| Server::bind(name, host.socket(family, port)))?
                .start()?;
        }
    }
    Ok(())
}

/// Somebody who answers at one address, over TCP and UDP.
struct Server {
    who: String,
    listener: TcpListener,
    socket: UdpSocket,
}

impl Server {
    fn bind(name: &str, at: SocketAddr) -> Result<Self> {
        let bind = || -> io::Result<_> { Ok((TcpListener::bind(at)?, UdpSocket::bind(at)?)) };
        let (listener, socket) = bind().with_context(|| format!("cannot serve at {at}"))?;
        Ok(Self {
            who: format!("{name} {at}"),
            listener,
            socket,
        })
    }

    /// Answers as long as this process lives.
    fn start(self) -> Result<()> {
        let Self {
            who,
            listener,
            socket,
        } = self;
        let same = who.clone();
        start(&who, move || serve_streams(&listener, &same))?;
        start(&who.clone(), move || serve_datagrams(&socket, &who))
    }
}

/// More who answer, for guests that somebody looks around in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answers {
    /// What they call themselves.
    pub name: String,
    /// Where.
    pub at: Vec<SocketAddr>,
}

impl Answers {
    /// Returns as soon as they can be asked; a process of its own goes on answering until it is ended.
    ///
    /// # Errors
    /// If that cannot be at one of the addresses.
    pub fn begin(&self) -> Result<()> {
        let servers: Vec<Server> = (self.at.iter())
            .map(|&at| Server::bind(&self.name, at))
            .collect::<Result<_>>()?;
        // Before there are threads, which it would not take along.
        daemon(true, false).context("cannot go to the background")?;
        for server in servers {
            server.start()?;
        }
        loop {
            thread::park();
        }
    }
}

fn start(who: &str, work: impl FnOnce() + Send + 'static) -> Result<()> {
    thread::Builder::new()
        .stack_size(STACK)
        .spawn(work)
        .map(drop)
        .with_context(|| format!("cannot start a thread for {who}"))
}

fn answer(who: &str, asked_by: SocketAddr, question: &str) -> String {
    format!("{who} answers {asked_by}: {}\n", question.trim_end())
}

fn serve_streams(listener: &TcpListener, who: &str) {
    for stream in listener.incoming().flatten() {
        let own = who.to_owned();
        // Without a thread for it, a connection is closed unanswered.
        let _ = start(who, move || {
            let _ = converse(stream, &own);
        });
    }
}

/// Answers a connection's lines until it ends.
fn converse(mut stream: TcpStream, who: &str) -> Result<()> {
    let asked_by = stream.peer_addr()?;
    let mut lines = BufReader::new(stream.try_clone()?);
    let mut line = Vec::new();
    while lines.read_until(b'\n', &mut line)? > 0 {
        let text = answer(who, asked_by, &String::from_utf8_lossy(&line));
        stream.write_all(text.as_bytes())?;
        line.clear();
    }
    Ok(())
}

fn serve_datagrams(socket: &UdpSocket, who: &str) {
    let mut buffer = [0; QUESTION_MAX];
    loop {
        // An error is that of an earlier answer, which nobody wanted.
        let Ok((length, asked_by)) = socket.recv_from(&mut buffer) else {
            continue;
        };
        let question = String::from_utf8_lossy(&buffer[..length]);
        let _ = socket.send_to(answer(who, asked_by, &question).as_bytes(), asked_by);
    }
}

/// What the original destination is asked, for guests that somebody looks around in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// Over IPv6.
    pub v6: bool,
    /// Over UDP.
    pub udp: bool,
    /// Whom, if another one.
    pub at: Option<SocketAddr>,
    /// What.
    pub text: String,
}

impl Default for Question {
    fn default() -> Self {
        Self {
            v6: false,
            udp: false,
            at: None,
            text: "hello".to_owned(),
        }
    }
}

impl Question {
    /// Asks, and gives the answer.
    ///
    /// # Errors
    /// If nobody answers.
    pub fn ask(&self) -> Result<String> {
        ensure!(
            self.text.len() < QUESTION_MAX,
            "a question has less than {QUESTION_MAX} bytes"
        );
        let family = if self.v6 { Family::V6 } else { Family::V4 };
        let at = self
            .at
            .unwrap_or_else(|| ORIGINAL.socket(family, ORIGINAL_PORT));
        let asked = if self.udp {
            ask_by_datagram(at, &self.text)
        } else {
            ask_by_stream(at, &self.text)
        };
        asked.with_context(|| format!("no answer from {at}"))
    }
}

fn ask_by_stream(at: SocketAddr, text: &str) -> Result<String> {
    let mut stream = TcpStream::connect_timeout(&at, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    writeln!(stream, "{text}")?;
    let mut line = String::new();
    let length = BufReader::new(stream).read_line(&mut line)?;
    ensure!(length > 0, "the connection was closed");
    Ok(line)
}

fn ask_by_datagram(at: SocketAddr, text: &str) -> Result<String> {
    const TRIES: u32 = 3;
    let anywhere: SocketAddr = match at {
        SocketAddr::V4(_) => ([0; 4], 0).into(),
        SocketAddr::V6(_) => ([0_u16; 8], 0).into(),
    };
    let socket = UdpSocket::bind(anywhere)?;
    socket.connect(at)?;
    socket.set_read_timeout(Some(PATIENCE / TRIES + Duration::from_millis(1)))?;
    let mut buffer = [0; 2 * QUESTION_MAX];
    let mut tries = 0;
    loop {
        socket.send(text.as_bytes())?;
        match socket.recv(&mut buffer) {
            Ok(length) => return Ok(String::from_utf8_lossy(&buffer[..length]).into_owned()),
            Err(error) if tries == TRIES => return Err(error.into()),
            Err(_) => tries += 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_and_datagrams_are_answered() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let at = listener.local_addr().unwrap();
        start("x", move || serve_streams(&listener, "x")).unwrap();
        let said = ask_by_stream(at, "how do you do").unwrap();
        assert!(said.starts_with("x answers 127.0.0.1:"), "{said}");
        assert!(said.ends_with(": how do you do\n"), "{said}");

        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let at = socket.local_addr().unwrap();
        start("y", move || serve_datagrams(&socket, "y")).unwrap();
        let said = ask_by_datagram(at, "well").unwrap();
        assert!(said.starts_with("y answers 127.0.0.1:"), "{said}");
        assert!(said.ends_with(": well\n"), "{said}");
    }

    #[test]
    fn all_that_can_be_asked_is_redirected() {
        let rules = rules();
        assert_eq!(rules.len(), 4);
        for rule in rules {
            assert_eq!(rule.record.port_first, ORIGINAL_PORT);
            assert_eq!(rule.upstreams[0].port, UPSTREAM_PORT);
        }
    }
}
