// SPDX-License-Identifier: MIT OR Apache-2.0

//! Whether what was built for measuring again is what was measured then.

use mutexlab_results::closure::{Closure, KernelClosure};

/// What became of the kernels and modules, a line each.
pub fn lines(then: &Closure, now: &Closure) -> Vec<String> {
    let mut lines = Vec::new();
    for (name, ours) in &then.kernels {
        let Some(theirs) = now.kernels.get(name) else {
            lines.push(format!("kernel {name}: not measured again"));
            continue;
        };
        lines.push(format!("kernel {name}: {}", kernel(ours, theirs)));
        for (module, hash) in &ours.modules {
            let now = match theirs.modules.get(module) {
                Some(now) if now == hash => "the same to the byte",
                Some(_) => "built anew, with other bytes",
                None => "not there",
            };
            lines.push(format!("{module}.ko for {name}: {now}"));
        }
    }
    lines
}

/// How like the kernel of then the one of now is, and why it is no more like it.
fn kernel(then: &KernelClosure, now: &KernelClosure) -> String {
    if then.image_sha256 == now.image_sha256 {
        return format!("the same image to the byte ({})", then.release);
    }
    let text = |text: &Option<String>| text.clone().unwrap_or_else(|| "unknown".to_owned());
    let why: Vec<String> = [
        (
            "source",
            text(&then.source_sha256),
            text(&now.source_sha256),
        ),
        (
            "configuration",
            then.config_sha256.clone(),
            now.config_sha256.clone(),
        ),
        ("C compiler", text(&then.compiler), text(&now.compiler)),
        ("Rust compiler", text(&then.rustc), text(&now.rustc)),
        ("bindgen", text(&then.bindgen), text(&now.bindgen)),
    ]
    .into_iter()
    .filter(|(_, then, now)| then != now)
    .map(|(what, then, now)| format!("{what}: {then} then, {now} now"))
    .collect();
    match (&then.source_sha256, why.is_empty()) {
        (None, _) => "it was a tree of somebody's own, of which the results know the image's hash \
                      alone; what is measured now is another image"
            .to_owned(),
        (_, true) => "another image of the same source, configuration and compilers, as one that \
                      was built in another place is"
            .to_owned(),
        (_, false) => format!("it could not be made again ({})", why.join("; ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mutexlab_results::sample::closure;

    fn with(change: impl FnOnce(&mut KernelClosure)) -> Closure {
        let mut closure = closure();
        let kernel = closure.kernels.get_mut("7.3").unwrap();
        kernel.modules.insert("mutex_proxy".into(), "e".repeat(64));
        change(kernel);
        closure
    }

    fn line(then: &Closure, now: &Closure, part: &str) -> String {
        let lines = lines(then, now);
        let found = lines.iter().find(|line| line.contains(part));
        found.unwrap_or_else(|| panic!("{part}: {lines:?}")).clone()
    }

    #[test]
    fn the_same_is_called_so() {
        let same = with(|_| ());
        assert!(line(&same, &same, "kernel 7.3").contains("the same image to the byte"));
        assert!(line(&same, &same, "mutex_proxy.ko").contains("the same to the byte"));
    }

    #[test]
    fn what_could_not_be_made_again_is_told_with_the_reason() {
        let then = with(|_| ());
        let other_image = |kernel: &mut KernelClosure| kernel.image_sha256 = "0".repeat(64);
        let elsewhere = with(other_image);
        assert!(line(&then, &elsewhere, "kernel 7.3").contains("in another place"));
        let compiler = with(|kernel| {
            other_image(kernel);
            kernel.compiler = Some("clang 99".into());
        });
        let told = line(&then, &compiler, "kernel 7.3");
        let reason = "could not be made again (C compiler: clang then, clang 99 now)";
        assert!(told.contains(reason), "{told}");
        let tree = with(|kernel| kernel.source_sha256 = None);
        assert!(line(&tree, &elsewhere, "kernel 7.3").contains("tree of somebody's own"));
        let module = with(|kernel| {
            kernel.modules.insert("mutex_proxy".into(), "f".repeat(64));
        });
        assert!(line(&then, &module, "mutex_proxy.ko").contains("other bytes"));
        let without = Closure {
            kernels: [].into(),
            ..closure()
        };
        assert!(line(&then, &without, "kernel 7.3").contains("not measured again"));
    }
}
