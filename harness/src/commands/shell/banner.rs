// SPDX-License-Identifier: MIT OR Apache-2.0

//! What somebody is told who comes into a guest.

use std::collections::BTreeMap;
use std::fmt::{self, Display, Formatter};
use std::path::Path;

use mutexlab_model::traffic::Family;
use mutexlab_protocol::addresses::{
    CLIENT, ORIGINAL, ORIGINAL_PORT, ROUTER_CLIENT_SIDE, ROUTER_SERVER_SIDE, UPSTREAM,
    UPSTREAM_PORT,
};

/// All of it.
pub struct Banner<'a> {
    /// The kernel's name in the catalog.
    pub kernel: &'a str,
    /// What `uname -r` says.
    pub release: &'a str,
    /// Number of CPUs.
    pub cpus: u32,
    /// How instructions are executed.
    pub accelerator: &'a str,
    /// The module's parameters that were given.
    pub parameters: &'a BTreeMap<String, String>,
    /// Whether there are rules that redirect.
    pub rules: bool,
    /// How a debugger attaches, a line each; empty if none can.
    pub debugger: &'a [String],
    /// Where the kernel's messages go.
    pub console_log: &'a Path,
}

impl Display for Banner<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Self {
            kernel,
            release,
            cpus,
            accelerator,
            ..
        } = self;
        writeln!(
            f,
            "\nLinux {release} ({kernel}), {accelerator}, {cpus} CPU{}, mutex_proxy with {}\n",
            if *cpus == 1 { "" } else { "s" },
            self.parameters_text()
        )?;
        for (name, family) in [("IPv4", Family::V4), ("IPv6", Family::V6)] {
            writeln!(
                f,
                "  {name}  client {} -- {} router {} -- {}, {} server",
                CLIENT.address(family),
                ROUTER_CLIENT_SIDE.address(family),
                ROUTER_SERVER_SIDE.address(family),
                UPSTREAM.address(family),
                ORIGINAL.address(family),
            )?;
        }
        let (original, upstream) = (ORIGINAL.address(Family::V4), UPSTREAM.address(Family::V4));
        match self.rules {
            true => writeln!(
                f,
                "\n  What goes to port {ORIGINAL_PORT} of {original}, TCP or UDP, is redirected to port {UPSTREAM_PORT} of {upstream}; with\n  \
                 IPv6 likewise. Both answer. This shell is in the router's namespace, in the host's files (read-only).\n"
            ),
            false => writeln!(
                f,
                "\n  Port {ORIGINAL_PORT} of {original} and port {UPSTREAM_PORT} of {upstream} answer; with IPv6 likewise. Nothing is redirected\n  \
                 yet. This shell is in the router's namespace, in the host's files (read-only).\n"
            ),
        }?;
        for (command, about) in [
            (
                "client ask",
                "a question to the original, and who answers; -u by UDP, -6 over IPv6",
            ),
            (
                "mprox apply FILE",
                "rules of your own; mprox --help tells more",
            ),
            ("cat /proc/net/mutex_proxy/stats", "the module's counters"),
            (
                "client COMMAND",
                "anything in a namespace; also router, server, or `ip netns exec`",
            ),
            (
                "exit, or Ctrl-D",
                "ends the guest; Ctrl-] three times, if that hangs",
            ),
        ] {
            writeln!(f, "  {command:<33}{about}")?;
        }
        if !self.debugger.is_empty() {
            writeln!(f)?;
        }
        for line in self.debugger {
            writeln!(f, "  {line}")?;
        }
        writeln!(
            f,
            "\n  The kernel's messages: dmesg, and {}\n",
            self.console_log.display()
        )
    }
}

impl Banner<'_> {
    fn parameters_text(&self) -> String {
        if self.parameters.is_empty() {
            return "its defaults".to_owned();
        }
        let pairs = self.parameters.iter();
        let pairs: Vec<String> = pairs
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        pairs.join(" ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_banner_tells_what_is_there() {
        let parameters = BTreeMap::from([("max_flows".to_owned(), "7".to_owned())]);
        let banner = Banner {
            kernel: "7.3:debug",
            release: "7.3.4-x",
            cpus: 1,
            accelerator: "emulated",
            parameters: &parameters,
            rules: true,
            debugger: &["gdb here".to_owned()],
            console_log: Path::new("a/b.log"),
        };
        let text = banner.to_string();
        for part in [
            "Linux 7.3.4-x (7.3:debug), emulated, 1 CPU, mutex_proxy with max_flows=7\n",
            "client 192.0.2.2 -- 192.0.2.1 router 198.51.100.1 -- 198.51.100.2, 198.51.100.3 server",
            "port 7 of 198.51.100.3, TCP or UDP, is redirected",
            "mprox apply",
            "  gdb here\n",
            "a/b.log",
        ] {
            assert!(text.contains(part), "{part} is not in {text}");
        }
        let plain = Banner {
            parameters: &BTreeMap::new(),
            rules: false,
            debugger: &[],
            ..banner
        };
        let text = plain.to_string();
        assert!(text.contains("its defaults") && text.contains("Nothing is redirected"));
    }
}
