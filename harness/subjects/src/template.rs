// SPDX-License-Identifier: MIT OR Apache-2.0

//! The texts of a subject, which are templates: what they know of the traffic, and what is wrong with them.

use std::net::SocketAddr;

use anyhow::{anyhow, Result};
use minijinja::syntax::SyntaxConfig;
use minijinja::{context, Environment, UndefinedBehavior, Value};

use mutexlab_model::facts::Place;
use mutexlab_model::traffic::{Family, Protocol, Traffic, Way};
use mutexlab_protocol::addresses;
use mutexlab_scenario::place;

/// What templates know of `traffic` and of the subject's own parameters, by name.
pub fn known(traffic: &Traffic, parameters: Value) -> Value {
    let at = |socket: SocketAddr| {
        context! { ip => socket.ip().to_string(), port => socket.port(), socket => socket.to_string() }
    };
    let host = |host: addresses::Host| host.address(traffic.family).to_string();
    context! {
        family => match traffic.family { Family::V4 => "v4", Family::V6 => "v6" },
        // nft's word for it.
        ip => match traffic.family { Family::V4 => "ip", Family::V6 => "ip6" },
        protocol => match traffic.protocol { Protocol::Udp => "udp", Protocol::Tcp => "tcp" },
        way => match traffic.way { Way::Forward => "forward", Way::Local => "local" },
        flows => traffic.flows_in_all(),
        original => at(addresses::place(Place::Original, traffic)),
        upstream => at(addresses::place(Place::Upstream, traffic)),
        router => context! {
            clients => host(addresses::ROUTER_CLIENT_SIDE),
            servers => host(addresses::ROUTER_SERVER_SIDE),
        },
        parameters,
        links => context! { clients => addresses::CLIENTS_LINK, servers => addresses::SERVERS_LINK },
    }
}

/// Fills in a template; `file` names it in errors.
///
/// # Errors
/// If it is malformed, or asks for what is not known: the message has line and column.
pub fn render(text: &str, file: &str, known: &Value) -> Result<String> {
    let mut environment = Environment::empty();
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    let syntax = SyntaxConfig::builder()
        .keep_trailing_newline(true)
        .trim_blocks(true)
        .lstrip_blocks(true)
        .build()?;
    environment.set_syntax(syntax);
    environment.set_debug(true);
    environment.add_function("range", minijinja::functions::range);
    environment
        .render_named_str(file, text, known)
        .map_err(|error| explain(&error, text, file))
}

fn explain(error: &minijinja::Error, text: &str, file: &str) -> anyhow::Error {
    let place = match (error.range(), error.line()) {
        (Some(range), _) => place(text, range.start, file),
        (None, Some(line)) => format!("{file}:{line}"),
        (None, None) => file.to_owned(),
    };
    let detail = error.detail().map(|detail| format!(": {detail}"));
    let what = match error.kind() {
        minijinja::ErrorKind::UndefinedError => {
            "nothing of this name is known here; known are family, ip, protocol, way, flows, ip, port and socket of \
             original and upstream, clients and servers of router and links, and of parameters those that \
             subject.toml declares in its [parameters]"
                .to_owned()
        }
        kind => kind.to_string(),
    };
    anyhow!("{place}: {what}{}", detail.unwrap_or_default())
}
