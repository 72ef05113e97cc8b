// SPDX-License-Identifier: MIT OR Apache-2.0

//! Names of Rust's functions, as short as a table needs them.

/// A demangled name without the modules that types are in, and with one module before the function:
/// `proxy::sys::hooks::trampoline::<proxy::redirect::Redirect<…>>` is `hooks::trampoline<Redirect<…>>`.
/// What is not of Rust stays as it is.
pub fn short(name: &str) -> String {
    let mut text = String::with_capacity(name.len());
    // The parts of the path that is being read, and how deep within angle brackets it is.
    let mut path: Vec<String> = vec![String::new()];
    let mut depth = 0_usize;
    let mut chars = name.chars().peekable();
    while let Some(char) = chars.next() {
        match char {
            ':' if chars.peek() == Some(&':') => {
                chars.next();
                // Turbofish.
                if chars.peek() != Some(&'<') {
                    path.push(String::new());
                }
            }
            '<' | '>' | ',' | ' ' | '(' | ')' | '[' | ']' | '&' | ';' | '*' | '=' | '+' => {
                flush(&mut text, &mut path, depth);
                depth = match char {
                    '<' => depth + 1,
                    '>' => depth.saturating_sub(1),
                    _ => depth,
                };
                text.push(char);
            }
            _ => {
                if let Some(part) = path.last_mut() {
                    part.push(char);
                }
            }
        }
    }
    flush(&mut text, &mut path, depth);
    text
}

/// Writes the end of a path.
fn flush(text: &mut String, path: &mut Vec<String>, depth: usize) {
    // `<Type>::function`: the type is written already.
    let continued = path.len() > 1 && path[0].is_empty();
    let kept = if depth == 0 { 2 } else { 1 };
    let from = match continued {
        true => 1,
        false => path.len().saturating_sub(kept),
    };
    if continued {
        text.push_str("::");
    }
    text.push_str(&path[from..].join("::"));
    *path = vec![String::new()];
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modules_are_left_out() {
        for (name, expected) in [
            ("nf_hook_slow", "nf_hook_slow"),
            ("x64_sys_call.part.0", "x64_sys_call.part.0"),
            ("proxy::redirect::run", "redirect::run"),
            (
                "proxy::sys::hooks::trampoline::<proxy::redirect::Redirect<proxy::datapath::tuple::V4, true>>",
                "hooks::trampoline<Redirect<V4, true>>",
            ),
            (
                "<proxy::flows::Flows<proxy::datapath::tuple::V4>>::new",
                "<Flows<V4>>::new",
            ),
            (
                "<proxy::a::B as core::ops::drop::Drop>::drop",
                "<B as Drop>::drop",
            ),
            ("<proxy::a::B>::c::{closure#0}", "<B>::c::{closure#0}"),
        ] {
            assert_eq!(short(name), expected);
        }
    }
}
