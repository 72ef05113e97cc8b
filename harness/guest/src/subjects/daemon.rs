// SPDX-License-Identifier: MIT OR Apache-2.0

//! Proxies in user space, each with what leads packets to it.

use std::fs;
use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{ensure, Context as _, Result};
use nix::time::{clock_getcpuclockid, clock_gettime};
use nix::unistd::Pid;

use super::ruleset;
use crate::kernel::resident::Resident;
use crate::net::layout::Layout;
use crate::net::namespace::Namespace;
use crate::net::netlink::RouteSocket;
use crate::net::nft;
use crate::traffic::target::Target;
use mutexlab_model::traffic::{Family, Traffic};
use mutexlab_protocol::addresses::UPSTREAM;
use mutexlab_protocol::{MICROSOCKS, REDSOCKS};

/// Where the agent lies.
const THIS_PROGRAM: &str = "/proc/self/exe";

/// Where the proxy on the router listens.
const PROXY_PORT: u16 = 3129;
/// Where the SOCKS server listens: RFC 1928.
const SOCKS_PORT: u16 = 1080;

/// The mark of packets that go to a socket here, wherever they are sent.
pub const MARK: u32 = 1;
/// The table by which they are routed.
const TABLE: u8 = 100;

/// How long a proxy may take until it listens.
const PATIENCE: Duration = Duration::from_secs(20);
const POLL: Duration = Duration::from_millis(10);

/// A process that ends when this is dropped.
struct Process {
    child: Child,
    // Kept, so that it need not wait for the host.
    files: Vec<Resident>,
}

/// A proxy that is up.
pub struct UserProxy {
    family: Family,
    processes: Vec<Process>,
}

impl UserProxy {
    /// Our own splicing proxy, and a TPROXY rule.
    pub fn splicing(traffic: &Traffic, layout: &Layout) -> Result<Self> {
        let router = &layout.router;
        let listen = SocketAddr::new(anywhere(traffic.family), PROXY_PORT);
        let [original, upstream] =
            [Target::Original, Target::Upstream].map(|target| target.address(traffic));
        let mut command = Command::new(THIS_PROGRAM);
        command.args(["splice-proxy", "--listen"]);
        command.arg(listen.to_string());
        command.args(["--rule", &format!("{original}={upstream}")]);
        let process = Process::start(command, "", router, traffic.family, PROXY_PORT)?;
        RouteSocket::open(router)?.deliver_marked(traffic.family, MARK, TABLE)?;
        nft::load(router, &ruleset::tproxy(traffic, PROXY_PORT, MARK))?;
        Ok(Self {
            family: traffic.family,
            processes: vec![process],
        })
    }

    /// Debian's redsocks with a redirect rule, and a SOCKS server on the upstream's machine.
    pub fn redsocks(traffic: &Traffic, layout: &Layout) -> Result<Self> {
        for program in [REDSOCKS, MICROSOCKS] {
            ensure!(
                Path::new(program).exists(),
                "there is no {program} in the guest's root"
            );
        }
        let socks = UPSTREAM.address(traffic.family).to_string();
        let mut server = Command::new(MICROSOCKS);
        // Its connections come from its own address, so that a server can tell.
        server.args(["-i", &socks, "-p", &SOCKS_PORT.to_string(), "-b", &socks]);
        let server = Process::start(server, "", &layout.server, traffic.family, SOCKS_PORT)?
            .kept_in_memory()?;
        let config = format!(
            "base {{ log_debug = off; log_info = off; daemon = off; redirector = iptables; }}\n\
             redsocks {{ local_ip = {}; local_port = {PROXY_PORT};\n\
             \x20 ip = {socks}; port = {SOCKS_PORT}; type = socks5; }}\n",
            anywhere(traffic.family)
        );
        let mut proxy = Command::new(REDSOCKS);
        proxy.args(["-c", "/proc/self/fd/0"]);
        let proxy = Process::start(proxy, &config, &layout.router, traffic.family, PROXY_PORT)?
            .kept_in_memory()?;
        nft::load(&layout.router, &ruleset::redirect(traffic, PROXY_PORT))?;
        Ok(Self {
            family: traffic.family,
            processes: vec![proxy, server],
        })
    }

    /// The time that its processes have spent, in and for them: without interrupts that came while
    /// nothing ran, but with the softirqs that they ran.
    pub fn cpu_time(&self) -> Result<Duration> {
        self.processes.iter().map(Process::cpu_time).sum()
    }

    /// Takes it down.
    pub fn down(self, router: &Namespace) -> Result<()> {
        nft::load(router, &ruleset::removal(self.family))
    }
}

impl Process {
    /// Starts a program in `namespace` with `input` to read, and waits until it listens at `port`.
    fn start(
        mut command: Command,
        input: &str,
        namespace: &Namespace,
        family: Family,
        port: u16,
    ) -> Result<Self> {
        let name = command.get_program().to_string_lossy().into_owned();
        command.stdin(Stdio::piped()).stdout(Stdio::null());
        // The child is made by this thread, and so is in its namespace.
        let child = namespace.run(|| {
            command
                .spawn()
                .with_context(|| format!("cannot start {name}"))
        })?;
        let mut process = Self {
            child,
            files: Vec::new(),
        };
        if let Some(mut stdin) = process.child.stdin.take() {
            // Closed afterwards: that is the input's end.
            stdin
                .write_all(input.as_bytes())
                .with_context(|| format!("{name} does not read"))?;
        }
        let deadline = Instant::now() + PATIENCE;
        while !listens(namespace, family, port)? {
            if let Some(status) = process
                .child
                .try_wait()
                .context("cannot ask for a process")?
            {
                anyhow::bail!("{name} ended before it listened: {status}");
            }
            ensure!(
                Instant::now() < deadline,
                "{name} does not listen at port {port} after {PATIENCE:?}"
            );
            thread::sleep(POLL);
        }
        Ok(process)
    }

    /// The same with its files in memory; our own program sees to that itself.
    fn kept_in_memory(mut self) -> Result<Self> {
        self.files = Resident::of_process(self.child.id())?;
        Ok(self)
    }

    fn cpu_time(&self) -> Result<Duration> {
        let pid = Pid::from_raw(i32::try_from(self.child.id())?);
        let clock = clock_getcpuclockid(pid).context("a process has no clock")?;
        Ok(clock_gettime(clock)
            .context("cannot read a process's clock")?
            .into())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

const fn anywhere(family: Family) -> IpAddr {
    match family {
        Family::V4 => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        Family::V6 => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    }
}

/// Whether something listens at a port of TCP in `namespace`.
fn listens(namespace: &Namespace, family: Family, port: u16) -> Result<bool> {
    // Not /proc/net: that is the main thread's.
    let path = match family {
        Family::V4 => "/proc/thread-self/net/tcp",
        Family::V6 => "/proc/thread-self/net/tcp6",
    };
    let text = namespace
        .run(|| fs::read_to_string(path).with_context(|| format!("cannot read {path}")))?;
    Ok(has_listener(&text, port))
}

/// Lines have a number, the local address and port, the remote one, and the state, in hexadecimal
/// digits: proc_net_tcp.rst.
fn has_listener(text: &str, port: u16) -> bool {
    const LISTEN: &str = "0A";
    let port = format!(":{port:04X}");
    text.lines().any(|line| {
        let mut words = line.split_whitespace().skip(1);
        let (local, _, state) = (words.next(), words.next(), words.next());
        local.is_some_and(|local| local.ends_with(&port)) && state == Some(LISTEN)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listeners_are_found() {
        let text = "  sl  local_address rem_address   st tx_queue\n\
                    \x20  0: 00000000:0C39 00000000:0000 0A 00000000:00000000\n\
                    \x20  1: 016433C6:0438 026433C6:9C40 01 00000000:00000000\n";
        assert!(has_listener(text, 3129));
        assert!(!has_listener(text, 1080), "that one is a connection");
        assert!(!has_listener(text, 7));
    }
}
