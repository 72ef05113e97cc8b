// SPDX-License-Identifier: GPL-2.0

//! What differs in the kernel crate between versions. `Kbuild` sets the configuration; what differs in the
//! kernel's C is in `version.h`.

/// `kernel::module!` with the same arguments for every version: 6.15 made an array of the author.
#[cfg(kernel_authors)]
macro_rules! kernel_module {
    ({ $($name:tt)* } { $($description:tt)* }) => {
        kernel::prelude::module! {
            $($name)*
            authors: ["The mutexlab authors"],
            $($description)*
            license: "GPL",
        }
    };
}

/// `kernel::module!` with the same arguments for every version: 6.15 made an array of the author.
#[cfg(not(kernel_authors))]
macro_rules! kernel_module {
    ({ $($name:tt)* } { $($description:tt)* }) => {
        kernel::prelude::module! {
            $($name)*
            author: "The mutexlab authors",
            $($description)*
            license: "GPL",
        }
    };
}

pub(crate) use kernel_module;
