// SPDX-License-Identifier: MIT OR Apache-2.0

//! Small files that the guest of a shell has beside what every guest has.

/// Where the guest looks for its programs first.
pub const PROGRAMS: &str = "/lab/bin";
/// The tool that controls the module.
pub const MPROX: &str = "/lab/bin/mprox";
/// What a shell reads when it starts.
pub const SHELL_RC: &str = "/lab/shellrc";

/// The variable in the environment of a guest's programs that says in which namespace they are.
pub const NAMESPACE_VARIABLE: &str = "MUTEXLAB_NAMESPACE";

/// A file in the guest.
#[derive(Clone, Copy, Debug)]
pub struct GuestFile {
    /// Its absolute path.
    pub path: &'static str,
    /// What is in it.
    pub text: &'static str,
    /// Its mode.
    pub mode: u32,
}

const fn program(path: &'static str, text: &'static str) -> GuestFile {
    let mode = 0o755;
    GuestFile { path, text, mode }
}

/// All of them.
pub const ALL: [GuestFile; 6] = [
    program(
        "/lab/bin/client",
        "#!/bin/sh\nexec /lab/agent in-namespace client \"$@\"\n",
    ),
    program(
        "/lab/bin/router",
        "#!/bin/sh\nexec /lab/agent in-namespace router \"$@\"\n",
    ),
    program(
        "/lab/bin/server",
        "#!/bin/sh\nexec /lab/agent in-namespace server \"$@\"\n",
    ),
    program("/lab/bin/ask", "#!/bin/sh\nexec /lab/agent ask \"$@\"\n"),
    program(
        "/lab/bin/answer",
        "#!/bin/sh\nexec /lab/agent answer \"$@\"\n",
    ),
    GuestFile {
        path: SHELL_RC,
        // Other shells expand variables in it, but do not know \w.
        text: "\
if [ -n \"$BASH_VERSION\" ]; then
    PS1='$MUTEXLAB_NAMESPACE:\\w# '
    HISTFILE=
else
    PS1='$MUTEXLAB_NAMESPACE# '
fi
",
        mode: 0o644,
    },
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_where_they_are_looked_for() {
        for file in ALL {
            let is_program = file.mode & 0o111 != 0;
            assert_eq!(is_program, file.path.starts_with(PROGRAMS), "{}", file.path);
        }
    }

    #[test]
    fn the_prompt_names_the_namespace() {
        let rc = ALL.iter().find(|file| file.path == SHELL_RC).unwrap();
        assert_eq!(rc.text.matches(NAMESPACE_VARIABLE).count(), 2);
    }
}
