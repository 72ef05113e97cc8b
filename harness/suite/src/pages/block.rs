// SPDX-License-Identifier: MIT OR Apache-2.0

//! The blocks of a page that mean something.

use std::path::PathBuf;

use anyhow::{bail, ensure, Context, Result};

/// Before a command in a guest: the prompt of a shell in the router.
const PROMPT: &str = "router:~# ";

/// A block of a page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Block {
    /// A file.
    File {
        /// Beside the page's other files.
        path: PathBuf,
        /// What is in it.
        text: String,
    },
    /// Commands for a shell of this machine.
    Commands {
        /// As they stand there.
        text: String,
        /// Whether they must fail.
        fail: bool,
    },
    /// What the commands before it print.
    Printed(String),
    /// What somebody does in the page's guest.
    Session(Vec<Step>),
}

/// A command in the page's guest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// What is typed.
    pub command: String,
    /// What it prints.
    pub printed: String,
    /// Whether it must fail.
    pub fail: bool,
}

/// The blocks of `page`.
///
/// # Errors
/// If a session does not begin with a command.
pub fn blocks(page: &str) -> Result<Vec<Block>> {
    let mut blocks = Vec::new();
    let mut lines = page.lines();
    while let Some(line) = lines.next() {
        let Some(head) = line.strip_prefix("```") else {
            continue;
        };
        let body: Vec<&str> = lines.by_ref().take_while(|line| *line != "```").collect();
        let text = body.join("\n") + "\n";
        let words: Vec<&str> = head.split_whitespace().collect();
        blocks.extend(match words[..] {
            ["sh"] => Some(Block::Commands { text, fail: false }),
            ["sh", "fails"] => Some(Block::Commands { text, fail: true }),
            ["text"] => Some(Block::Printed(text)),
            ["console", "guest"] => Some(Block::Session(steps(&body, false)?)),
            ["console", "guest", "fails"] => Some(Block::Session(steps(&body, true)?)),
            ["sh" | "text", ..] => bail!("nobody knows a block {head}"),
            [_, path] => Some(Block::File {
                path: path.into(),
                text,
            }),
            _ => None,
        });
    }
    Ok(blocks)
}

/// The commands of a session; `fails` is said of its last one.
fn steps(lines: &[&str], fails: bool) -> Result<Vec<Step>> {
    let mut steps: Vec<Step> = Vec::new();
    for line in lines {
        match line.strip_prefix(PROMPT) {
            Some(command) => steps.push(Step {
                command: command.to_owned(),
                printed: String::new(),
                fail: false,
            }),
            None => {
                let step = steps.last_mut().with_context(|| {
                    format!("before {line:?} there is no command, which begins with {PROMPT:?}")
                })?;
                step.printed += line;
                step.printed.push('\n');
            }
        }
    }
    ensure!(!steps.is_empty(), "a session has no command");
    if let Some(last) = steps.last_mut() {
        last.fail = fails;
    }
    Ok(steps)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_files_commands_and_what_they_print() {
        let page = "x\n```toml ../a.toml\nb = 1\n```\n```sh\nls\n```\n\n```text\na.toml\n```\n```sh fails\nfalse\n```\n```\nno\n```\n```console\n$ no\n```\n";
        let expected = [
            Block::File {
                path: "../a.toml".into(),
                text: "b = 1\n".into(),
            },
            Block::Commands {
                text: "ls\n".into(),
                fail: false,
            },
            Block::Printed("a.toml\n".into()),
            Block::Commands {
                text: "false\n".into(),
                fail: true,
            },
        ];
        assert_eq!(blocks(page).unwrap(), expected);
    }

    #[test]
    fn sessions_are_commands_each_with_what_it_prints() {
        let page = "```console guest fails\nrouter:~# a b\none\n\ntwo\nrouter:~# c\n```\n";
        let step = |command: &str, printed: &str, fail| Step {
            command: command.to_owned(),
            printed: printed.to_owned(),
            fail,
        };
        let expected = Block::Session(vec![
            step("a b", "one\n\ntwo\n", false),
            step("c", "", true),
        ]);
        assert_eq!(blocks(page).unwrap(), [expected]);
        for bad in [
            "```console guest\n$ ls\n```\n",
            "```console guest\n```\n",
            "```sh fals\n```\n",
        ] {
            assert!(blocks(bad).is_err(), "{bad}");
        }
    }
}
