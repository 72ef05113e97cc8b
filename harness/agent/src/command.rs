// SPDX-License-Identifier: MIT OR Apache-2.0

//! What the agent can be told to do.

use std::ffi::OsString;
use std::io::Write;
use std::net::SocketAddr;
use std::path::Path;

use anyhow::{bail, ensure, Context, Result};
use lexopt::{Arg, Parser, ValueExt};
use mutexlab_protocol::test_info::TestInfo;
use mutexlab_protocol::ORDER_PATH;

use crate::agent;
use crate::init;
use crate::shell::echo::{Answers, Question};
use crate::shell::namespaces::Visit;
use crate::splice::Splice;

const HELP: &str = "\
mutexlab-agent: does a guest's work; `mutexlab bench`, `test` and `shell` start it where it belongs.

Usage:
  mutexlab-agent run                            In a guest: carry out the order, then power off
  mutexlab-agent init                           In a guest, as its first program: make it one, and run
  mutexlab-agent look-at-log                    In a guest: tell what the kernel's log complains of
  mutexlab-agent list-tests                     Print the functional tests as JSON
  mutexlab-agent splice-proxy --listen ADDRESS [--rule ORIGINAL=UPSTREAM]...
                                                Take connections of a TPROXY rule, and splice them
  mutexlab-agent in-namespace NAME [COMMAND]... Run a command, or a shell, in a network namespace
  mutexlab-agent ask [-6] [-u] [--at ADDRESS:PORT] [WORD]...
                                                Ask the original destination who answers
  mutexlab-agent answer NAME ADDRESS:PORT...    Answer there, too, over TCP and UDP; in the background

Example:
  mutexlab-agent splice-proxy --listen 0.0.0.0:3129 --rule 198.51.100.3:7=198.51.100.2:7007
";

/// One of its verbs.
pub enum Command {
    /// Print what there is.
    Help,
    /// Carry the order out.
    Run,
    /// Be the first program, and have the order carried out.
    Init,
    /// Tell what the log complains of.
    LookAtLog,
    /// Tell of the functional tests.
    ListTests,
    /// Be a proxy in user space.
    Splice(Splice),
    /// Run something in a namespace.
    Visit(Visit),
    /// Ask who answers.
    Ask(Question),
    /// Answer who asks.
    Answer(Answers),
}

impl Command {
    /// Reads a command line.
    ///
    /// # Errors
    /// If it is not understood.
    pub fn parse(mut words: Parser) -> Result<Self> {
        let verb = match words.next()? {
            Some(Arg::Value(verb)) => verb.string()?,
            Some(Arg::Short('h') | Arg::Long("help")) | None => return Ok(Self::Help),
            Some(other) => return Err(other.unexpected().into()),
        };
        match verb.as_str() {
            "run" => ended(words).map(|()| Self::Run),
            "init" => ended(words).map(|()| Self::Init),
            "look-at-log" => ended(words).map(|()| Self::LookAtLog),
            "list-tests" => ended(words).map(|()| Self::ListTests),
            "splice-proxy" => splice(words).map(Self::Splice),
            "in-namespace" => visit(words).map(Self::Visit),
            "ask" => question(words).map(Self::Ask),
            "answer" => answers(words).map(Self::Answer),
            _ => bail!("there is no {verb}: see mutexlab-agent --help"),
        }
    }

    /// Does it. In a guest `run` returns only if powering off fails.
    ///
    /// # Errors
    /// What keeps it from being done.
    pub fn run(self) -> Result<()> {
        match self {
            Self::Help => print(HELP.as_bytes()),
            Self::Run => match agent::run(Path::new(ORDER_PATH))? {},
            Self::Init => match init::run()? {},
            Self::LookAtLog => agent::look_at_log(),
            Self::ListTests => {
                let all = mutexlab_functional::all();
                let infos: Vec<TestInfo> = all.into_iter().map(|test| test.info).collect();
                print(&serde_json::to_vec(&infos).context("cannot write JSON")?)
            }
            Self::Splice(splice) => splice.run(),
            Self::Visit(visit) => visit.run(),
            Self::Ask(question) => print(question.ask()?.as_bytes()),
            Self::Answer(answers) => answers.begin(),
        }
    }
}

fn print(bytes: &[u8]) -> Result<()> {
    let written = std::io::stdout().write_all(bytes);
    written.context("cannot write to standard output")
}

fn ended(mut words: Parser) -> Result<()> {
    match words.next()? {
        None => Ok(()),
        Some(other) => Err(other.unexpected().into()),
    }
}

fn splice(mut words: Parser) -> Result<Splice> {
    let (mut listen, mut rules) = (None, Vec::new());
    while let Some(word) = words.next()? {
        match word {
            Arg::Long("listen") => listen = Some(words.value()?.parse::<SocketAddr>()?),
            Arg::Long("rule") => rules.push(words.value()?.string()?.parse()?),
            other => return Err(other.unexpected().into()),
        }
    }
    Ok(Splice {
        listen: listen.context("splice-proxy needs --listen")?,
        rules,
    })
}

fn visit(mut words: Parser) -> Result<Visit> {
    let namespace = match words.next()? {
        Some(Arg::Value(name)) => name.string()?,
        _ => bail!("in-namespace needs a name"),
    };
    Ok(Visit {
        namespace,
        // What follows is for the command, options or not.
        command: words.raw_args()?.collect::<Vec<OsString>>(),
    })
}

fn question(mut words: Parser) -> Result<Question> {
    let (mut question, mut text) = (Question::default(), Vec::new());
    while let Some(word) = words.next()? {
        match word {
            Arg::Short('6') | Arg::Long("v6") => question.v6 = true,
            Arg::Short('u') | Arg::Long("udp") => question.udp = true,
            Arg::Long("at") => question.at = Some(words.value()?.parse()?),
            Arg::Value(word) => text.push(word.string()?),
            other => return Err(other.unexpected().into()),
        }
    }
    if !text.is_empty() {
        question.text = text.join(" ");
    }
    Ok(question)
}

fn answers(mut words: Parser) -> Result<Answers> {
    let name = match words.next()? {
        Some(Arg::Value(name)) => name.string()?,
        _ => bail!("answer needs a name"),
    };
    let mut at = Vec::new();
    while let Some(word) = words.next()? {
        match word {
            Arg::Value(address) => at.push(address.parse()?),
            other => return Err(other.unexpected().into()),
        }
    }
    ensure!(!at.is_empty(), "answer needs an address and port");
    Ok(Answers { name, at })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Command> {
        Command::parse(Parser::from_args(line.split_whitespace()))
    }

    #[test]
    fn what_scripts_in_the_guest_say_is_understood() {
        assert!(matches!(parse("run"), Ok(Command::Run)));
        assert!(matches!(parse("init"), Ok(Command::Init)));
        assert!(matches!(parse(""), Ok(Command::Help)));
        let Ok(Command::Visit(visit)) = parse("in-namespace client ip -6 route") else {
            panic!("not understood");
        };
        assert_eq!(visit.namespace, "client");
        assert_eq!(visit.command, ["ip", "-6", "route"]);
        let Ok(Command::Ask(question)) = parse("ask -u -6 how do you do") else {
            panic!("not understood");
        };
        assert!(question.udp && question.v6);
        assert_eq!(question.text, "how do you do");
        let Ok(Command::Splice(splice)) =
            parse("splice-proxy --listen 0.0.0.0:3129 --rule 198.51.100.3:7=198.51.100.2:7007")
        else {
            panic!("not understood");
        };
        assert_eq!(splice.listen.port(), 3129);
        assert_eq!(splice.rules.len(), 1);
        let Ok(Command::Answer(answers)) = parse("answer web 198.51.100.2:80 [2001:db8:2::2]:80")
        else {
            panic!("not understood");
        };
        assert_eq!((answers.name.as_str(), answers.at.len()), ("web", 2));
    }

    #[test]
    fn what_is_not_understood_is_refused() {
        for line in [
            "measure",
            "run twice",
            "splice-proxy",
            "splice-proxy --listen here",
            "splice-proxy --listen 0.0.0.0:1 --rule a",
            "in-namespace",
            "ask --loudly",
            "answer",
            "answer web",
            "answer web 198.51.100.2",
        ] {
            assert!(parse(line).is_err(), "{line}");
        }
    }
}
