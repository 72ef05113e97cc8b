// SPDX-License-Identifier: MIT OR Apache-2.0

//! What QEMU calls instead of the C library's functions if this library is loaded before it (`LD_PRELOAD`): where its main loop and its
//! CPUs sleep, they take [`Turns`].

use std::cell::Cell;
use std::ffi::{c_char, c_int, c_void, CStr};
use std::mem;
use std::process;
use std::ptr;
use std::slice;
use std::sync::atomic::{AtomicI32, AtomicPtr, AtomicU32, Ordering};
use std::sync::OnceLock;
use std::time::Duration;

use libc::{nfds_t, pollfd, pthread_cond_t, pthread_mutex_t, sigset_t, timespec};

use crate::turns::Turns;

type Ppoll = unsafe extern "C" fn(*mut pollfd, nfds_t, *const timespec, *const sigset_t) -> c_int;
type CondWait = unsafe extern "C" fn(*mut pthread_cond_t, *mut pthread_mutex_t) -> c_int;

unsafe extern "C" {
    fn dlvsym(handle: *mut c_void, name: *const c_char, version: *const c_char) -> *mut c_void;
}

static TURNS: Turns = Turns::at_start();

/// How long a debugger waits for a guest that never halts.
const PATIENCE: Duration = Duration::from_secs(1);

/// Waits for something to do, as ppoll(2): here the main loop sleeps.
///
/// # Safety
///
/// As ppoll(2).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ppoll(
    fds: *mut pollfd,
    count: nfds_t,
    timeout: *const timespec,
    signals: *const sigset_t,
) -> c_int {
    static REAL: OnceLock<Option<Ppoll>> = OnceLock::new();
    // SAFETY: the C library's function has this type.
    let real = REAL.get_or_init(|| unsafe { mem::transmute(next(c"ppoll", c"GLIBC_2.4")) });
    let Some(real) = real else { process::abort() };
    if !is_main_loop() || holds_lock() {
        // SAFETY: the caller's promise.
        return unsafe { real(fds, count, timeout, signals) };
    }
    TURNS.main_loop_sleeps();
    // SAFETY: the caller's promise.
    let ready = unsafe { real(fds, count, timeout, signals) };
    // SAFETY: errno is the thread's own.
    let errno = unsafe { *libc::__errno_location() };
    let fds = if ready > 0 && !fds.is_null() {
        // SAFETY: the caller's promise: there are so many, which the call has written.
        unsafe { slice::from_raw_parts(fds, count as usize) }
    } else {
        &[]
    };
    TURNS.main_loop_wakes(fds.iter().any(speaks).then_some(PATIENCE));
    // SAFETY: as above.
    unsafe { *libc::__errno_location() = errno };
    ready
}

/// The lock of QEMU's machine, which both hold while they are awake (`qemu_global_mutex`, `bql` since QEMU 9). It is the one with which
/// the main loop waits for the first CPU to come to life (`qemu_init_vcpu()`), before anything else.
static LOCK: AtomicPtr<pthread_mutex_t> = AtomicPtr::new(ptr::null_mut());

/// Waits for a condition, as pthread_cond_wait(3): with the machine's lock, here all CPUs sleep, and the main loop while it waits for them. What
/// has another lock is short, as a plugin's wait for CPUs to leave what they execute (`start_exclusive()`).
///
/// # Safety
///
/// As pthread_cond_wait(3).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pthread_cond_wait(
    condition: *mut pthread_cond_t,
    mutex: *mut pthread_mutex_t,
) -> c_int {
    static REAL: OnceLock<Option<CondWait>> = OnceLock::new();
    // Not the one of before glibc 2.3.2, whose conditions are others.
    // SAFETY: the C library's function has this type.
    let real =
        REAL.get_or_init(|| unsafe { mem::transmute(next(c"pthread_cond_wait", c"GLIBC_2.3.2")) });
    let Some(real) = real else { process::abort() };
    if is_main_loop() {
        let unknown = ptr::null_mut();
        let _ = LOCK.compare_exchange(unknown, mutex, Ordering::SeqCst, Ordering::SeqCst);
    }
    if LOCK.load(Ordering::SeqCst) != mutex {
        // SAFETY: the caller's promise.
        return unsafe { real(condition, mutex) };
    }
    if is_main_loop() {
        TURNS.main_loop_sleeps();
        // SAFETY: the caller's promise.
        let result = unsafe { real(condition, mutex) };
        TURNS.main_loop_was_answered();
        return result;
    }
    TURNS.cpus_sleep();
    // SAFETY: the caller's promise.
    let result = unsafe { real(condition, mutex) };
    // SAFETY: the caller holds the mutex, as it did before, and when this returns.
    TURNS.cpus_wake(|wait| unsafe {
        libc::pthread_mutex_unlock(mutex);
        wait();
        libc::pthread_mutex_lock(mutex);
    });
    result
}

/// The function that would be called without this library; null if there is none.
fn next(name: &CStr, version: &CStr) -> *mut c_void {
    // SAFETY: both are strings; the handle is one that dlvsym(3) knows.
    unsafe { dlvsym(libc::RTLD_NEXT, name.as_ptr(), version.as_ptr()) }
}

/// Whether the calling thread is the first one, which is the main loop's.
fn is_main_loop() -> bool {
    thread_local! {
        static IS_IT: Cell<Option<bool>> = const { Cell::new(None) };
    }
    IS_IT.get().unwrap_or_else(|| {
        // SAFETY: has no preconditions.
        let thread = unsafe { libc::gettid() };
        let is_it = u32::try_from(thread) == Ok(process::id());
        IS_IT.set(Some(is_it));
        is_it
    })
}

/// Whether the calling thread holds the machine's lock. The main loop does while it polls at the end of a guest (`aio_poll()` in `monitor_cleanup()`): the
/// CPUs' thread may wait for the lock then, and would not come to sleep.
fn holds_lock() -> bool {
    /// What a mutex begins with in glibc on a 64-bit machine (`struct __pthread_mutex_s`, sysdeps/nptl/bits/struct_mutex.h), which writes the owner
    /// of any that is not robust or elided (nptl/pthread_mutex_lock.c).
    #[repr(C)]
    struct Mutex {
        _lock: AtomicI32,
        _count: AtomicU32,
        owner: AtomicI32,
    }
    let lock: *const Mutex = LOCK.load(Ordering::SeqCst).cast();
    // SAFETY: null, or QEMU's lock, which is static; its size and alignment are greater. Others write its words at any time, as atomics.
    let lock = unsafe { lock.as_ref() };
    // SAFETY: has no preconditions.
    lock.is_some_and(|lock| lock.owner.load(Ordering::Relaxed) == unsafe { libc::gettid() })
}

/// Whether somebody outside says something: of all that QEMU polls in a repeatable machine only a debugger's connection is a socket.
fn speaks(fd: &pollfd) -> bool {
    if fd.revents == 0 {
        return false;
    }
    // SAFETY: a stat is plain numbers, for which zero is a value.
    let mut stat: libc::stat = unsafe { mem::zeroed() };
    // SAFETY: the structure outlives the call.
    let known = unsafe { libc::fstat(fd.fd, &raw mut stat) };
    known == 0 && stat.st_mode & libc::S_IFMT == libc::S_IFSOCK
}
