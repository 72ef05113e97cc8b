// SPDX-License-Identifier: GPL-2.0

//! The Generic Netlink family, and what belongs to each of its sockets and to each network namespace.

use core::ffi::{c_int, c_void, CStr};
use core::ptr::NonNull;

use kernel::alloc::flags::GFP_KERNEL_ACCOUNT;
use kernel::prelude::*;
use kernel::str::CStr as KernelStr;
use kernel::sync::{new_condvar, new_mutex, Arc, CondVar, Mutex};

use super::bindings;
use super::net::Namespace;
use super::procfs::Directory;
use super::window::Window;
use crate::abi::netlink::attribute::{Attributes, NoRoom, Writer};
use crate::abi::netlink::refusal::Refusal;
use crate::abi::proxy::MAX_CONTEXTS;

/// A reason for which the kernel crate of some version has no [`Error`].
#[derive(Clone, Copy)]
pub(crate) enum Reason {
    /// EAGAIN.
    Again,
    /// EINVAL.
    Invalid,
    /// ENODATA.
    NoData,
    /// ENOENT.
    NotThere,
    /// EMSGSIZE.
    NoRoom,
    /// ENOSPC.
    NoSpace,
    /// ESTALE.
    Stale,
    /// EOPNOTSUPP.
    NotSupported,
}

impl Reason {
    fn errno(self) -> c_int {
        let number = match self {
            Self::Again => return EAGAIN.to_errno(),
            Self::Invalid => return EINVAL.to_errno(),
            Self::NotThere => return ENOENT.to_errno(),
            Self::NoSpace => return ENOSPC.to_errno(),
            Self::NoRoom => bindings::EMSGSIZE,
            Self::NoData => bindings::ENODATA,
            Self::Stale => bindings::ESTALE,
            Self::NotSupported => bindings::EOPNOTSUPP,
        };
        (number as c_int).wrapping_neg()
    }
}

/// Why a request was not done.
#[derive(Clone, Copy)]
pub(crate) struct Refused {
    // Negative.
    errno: c_int,
    message: Option<&'static CStr>,
    // Bytes from the first attribute on.
    offset: Option<usize>,
}

impl Refused {
    /// For this reason, which `message` says to people.
    pub(crate) fn because(reason: Reason, message: &'static CStr) -> Self {
        Self {
            errno: reason.errno(),
            message: Some(message),
            offset: None,
        }
    }
}

impl From<Error> for Refused {
    fn from(error: Error) -> Self {
        Self {
            errno: error.to_errno(),
            message: None,
            offset: None,
        }
    }
}

impl From<Refusal> for Refused {
    fn from(refusal: Refusal) -> Self {
        Self {
            errno: EINVAL.to_errno(),
            message: Some(refusal.message),
            offset: Some(refusal.offset),
        }
    }
}

impl From<NoRoom> for Refused {
    fn from(_: NoRoom) -> Self {
        Self {
            errno: Reason::NoRoom.errno(),
            message: None,
            offset: None,
        }
    }
}

/// How far a dump has come: zeros at first, and then whatever was left here.
pub(crate) type Position = [u64; 4];

/// What became of a part of a dump.
#[derive(Clone, Copy)]
pub(crate) struct Part {
    /// A message was written; else the end has come.
    pub(crate) written: bool,
    /// What is dumped is the same as before if this is; zero if nobody shall ask. The end has it, too.
    pub(crate) generation: u32,
}

impl Part {
    /// The end of what need not be of one moment.
    pub(crate) const END: Self = Self {
        written: false,
        generation: 0,
    };
}

/// What requests are handed to. All of it may sleep.
pub(crate) trait Family: Send + Sync + 'static {
    /// What belongs to a socket. It is dropped by the call that closes the socket's last descriptor, before that returns.
    type Session: Send + Sync + 'static;
    /// What belongs to a namespace, from its beginning to its end, or while the module is there.
    type Local: Send + Sync + 'static;
    /// The directory of each namespace in its /proc/net/.
    const DIRECTORY: &'static KernelStr;

    /// What a namespace has that begins.
    fn enter(&self) -> Result<Self::Local>;

    /// Puts files into a namespace's directory.
    fn publish(directory: &mut Directory<Self::Local>) -> Result;

    /// What a socket has that asks for the first time.
    fn session(local: &Arc<Self::Local>) -> Result<Self::Session>;

    /// Does what a request says; what is written is the answer.
    fn request(request: &Request<'_, Self>, answer: &mut Writer<'_>) -> Result<(), Refused>;

    /// Writes one message of a dump.
    fn dump(
        request: &Request<'_, Self>,
        position: &mut Position,
        message: &mut Writer<'_>,
    ) -> Result<Part, Refused>;

    /// The namespace ends: the end waits until nothing refers to it. Files may still be read.
    fn leave(local: &Self::Local);
}

/// A request, or a part of a dump.
pub(crate) struct Request<'a, F: Family + ?Sized> {
    /// The namespace of the socket.
    pub(crate) net: Namespace,
    /// What belongs to the namespace.
    pub(crate) local: &'a Arc<F::Local>,
    /// What is asked for.
    pub(crate) command: u8,
    attributes: &'a [u8],
    sender: NonNull<bindings::sock>,
    port: u32,
    sessions: &'a Sessions<F>,
}

impl<F: Family + ?Sized> Request<'_, F> {
    /// Its attributes.
    pub(crate) fn attributes(&self) -> Attributes<'_> {
        Attributes::new(self.attributes)
    }

    /// What belongs to its socket, if it has asked for that before.
    pub(crate) fn known_session(&self) -> Option<Arc<F::Session>> {
        let sessions = self.sessions.inner.lock();
        let mut known = sessions.iter().flatten();
        let entry = known.find(|one| one.socket.0 == self.sender)?;
        entry.session.clone()
    }

    /// What belongs to its socket. ENOSPC: too many in its namespace have something.
    pub(crate) fn session(&self) -> Result<Arc<F::Session>, Refused> {
        if let Some(known) = self.known_session() {
            return Ok(known);
        }
        let new = Arc::new(F::session(self.local)?, GFP_KERNEL_ACCOUNT).map_err(Error::from)?;
        let mut sessions = self.sessions.inner.lock();
        let mut known = sessions.iter().flatten();
        if let Some(one) = known.find(|one| one.socket.0 == self.sender) {
            // Another thread has asked by the same socket meanwhile. It is open: its session is there.
            return Ok(one.session.clone().ok_or(EINVAL)?);
        }
        if sessions.iter().flatten().count() >= MAX_CONTEXTS {
            let message = c"64 sockets of this network namespace stage already";
            return Err(Refused::because(Reason::NoSpace, message));
        }
        let entry = Some(Entry {
            socket: Socket::hold(self.sender),
            port: self.port,
            session: Some(new.clone()),
        });
        match sessions.iter_mut().find(|slot| slot.is_none()) {
            Some(slot) => *slot = entry,
            None => sessions.push(entry, GFP_KERNEL_ACCOUNT).map_err(Error::from)?,
        }
        Ok(new)
    }
}

/// A reference to a socket.
struct Socket(NonNull<bindings::sock>);

impl Socket {
    // Only of the sender of a request that is being handled.
    fn hold(sender: NonNull<bindings::sock>) -> Self {
        // SAFETY: the sender sleeps in sendmsg() or recvmsg() by a descriptor of the socket, which keeps it. Put in `drop`.
        unsafe { bindings::mxp_sock_hold(sender.as_ptr()) };
        Self(sender)
    }

    fn is_closed(&self) -> bool {
        // SAFETY: the reference keeps the socket.
        unsafe { bindings::mxp_sock_is_closed(self.0.as_ptr()) }
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        // SAFETY: got in `hold`.
        unsafe { bindings::mxp_sock_put(self.0.as_ptr()) };
    }
}

/// A socket that has something, and what.
struct Entry<S> {
    // None while it is dropped.
    session: Option<Arc<S>>,
    port: u32,
    // Last: what belongs to the socket goes before the socket, and with it the namespace, may.
    socket: Socket,
}

// SAFETY: `Socket` may be put by any task.
unsafe impl<S: Send + Sync> Send for Entry<S> {}

/// Those of a namespace: up to `MAX_CONTEXTS`.
struct Sessions<F: Family + ?Sized> {
    inner: Pin<KBox<Mutex<KVVec<Option<Entry<F::Session>>>>>>,
    // Signalled when an entry has gone.
    gone: Pin<KBox<CondVar>>,
}

impl<F: Family + ?Sized> Sessions<F> {
    fn new() -> Result<Self> {
        Ok(Self {
            inner: KBox::pin_init(new_mutex!(KVVec::new()), GFP_KERNEL_ACCOUNT)?,
            gone: KBox::pin_init(new_condvar!(), GFP_KERNEL_ACCOUNT)?,
        })
    }

    // Drops what belongs to sockets that were closed. An address may be that of a new socket already: netlink takes a closing socket
    // off its table before it tells of it. So the socket itself is asked. If two of one address were closed, a call may drop
    // what belonged to the other one's socket: so either waits until both have nothing left.
    fn release(&self, port: u32) {
        Window::Release.pass();
        let mut sessions = self.inner.lock();
        loop {
            let is_closed = |one: &Entry<_>| one.port == port && one.socket.is_closed();
            let mut closed = sessions.iter_mut().flatten().filter(|one| is_closed(one));
            let Some((socket, session)) =
                closed.find_map(|one| Some((one.socket.0, one.session.take()?)))
            else {
                if !sessions.iter().flatten().any(is_closed) {
                    return;
                }
                self.gone.wait(&mut sessions);
                continue;
            };
            drop(sessions);
            drop(session);
            sessions = self.inner.lock();
            let is_it = |slot: &&mut Option<Entry<_>>| {
                slot.as_ref().is_some_and(|one| one.socket.0 == socket)
            };
            if let Some(slot) = sessions.iter_mut().find(is_it) {
                *slot = None;
            }
            self.gone.notify_all();
        }
    }
}

/// What there is of a namespace.
struct OfNet<F: Family> {
    // First: it has no reader once it is dropped, and readers use the rest.
    _directory: Directory<F::Local>,
    local: Arc<F::Local>,
    sessions: Sessions<F>,
}

impl<F: Family> OfNet<F> {
    /// # Safety
    ///
    /// The namespace begins, and netlink.c hands this back at its end.
    unsafe fn new(family: &F, net: &Namespace) -> Result<KBox<Self>> {
        let local = Arc::new(family.enter()?, GFP_KERNEL_ACCOUNT)?;
        let sessions = Sessions::new()?;
        // SAFETY: the caller's promise: netlink.c has `end` as its `exit`, which comes before that of /proc/net.
        let mut directory = unsafe { Directory::new(net, F::DIRECTORY, local.clone()) }?;
        F::publish(&mut directory)?;
        let of_net = Self {
            _directory: directory,
            local,
            sessions,
        };
        Ok(KBox::new(of_net, GFP_KERNEL_ACCOUNT)?)
    }
}

struct Inner<F: Family> {
    calls: bindings::mxp_netlink_calls,
    family: F,
}

/// A family that is there, until this is dropped.
pub(crate) struct Registered<F: Family>(KBox<Inner<F>>);

// SAFETY: registering and unregistering may happen in any task.
unsafe impl<F: Family> Send for Registered<F> {}
// SAFETY: gives access to nothing.
unsafe impl<F: Family> Sync for Registered<F> {}

impl<F: Family> Registered<F> {
    /// Hands requests to `family`. Not more than one at a time in the module.
    pub(crate) fn new(family: F) -> Result<Self> {
        let mut inner = KBox::new(
            Inner {
                calls: bindings::mxp_netlink_calls {
                    target: core::ptr::null_mut(),
                    enter: Some(enter::<F>),
                    request: Some(request::<F>),
                    dump: Some(dump::<F>),
                    released: Some(released::<F>),
                    leave: Some(leave::<F>),
                    end: Some(end::<F>),
                },
                family,
            },
            GFP_KERNEL,
        )?;
        inner.calls.target = core::ptr::from_ref::<Inner<F>>(&inner).cast_mut().cast();
        // SAFETY: the calls, and what they are for, lie in the box, until the family is unregistered.
        kernel::error::to_result(unsafe { bindings::mxp_netlink_register(&inner.calls) })?;
        Ok(Self(inner))
    }
}

impl<F: Family> Drop for Registered<F> {
    fn drop(&mut self) {
        // SAFETY: registered in `new`. May sleep: dropped when the module goes. No call is under way after it.
        unsafe { bindings::mxp_netlink_unregister() };
    }
}

// What netlink.c got of `enter`, and has not handed to `end` yet.
unsafe fn of_net<'a, F: Family>(pointer: *mut c_void) -> &'a OfNet<F> {
    // SAFETY: by the caller.
    unsafe { &*pointer.cast_const().cast::<OfNet<F>>() }
}

// A request as netlink.c describes it, and the room for an answer.
unsafe fn with_request<F: Family>(
    raw: *mut bindings::mxp_netlink_request,
    room: *mut c_void,
    size: *mut usize,
    call: impl FnOnce(&Request<'_, F>, &mut Writer<'_>) -> Result<Part, Refused>,
) -> c_int {
    // SAFETY: by the caller: netlink.c hands over a request and a size of its own, for the time of this call.
    let (raw, size) = unsafe { (&mut *raw, &mut *size) };
    // SAFETY: the namespace has a socket, so it has begun and does not end during this call.
    let of_net = unsafe { of_net::<F>(raw.of_net) };
    let Some(sender) = NonNull::new(raw.sender) else {
        return EINVAL.to_errno();
    };
    let request = Request {
        // SAFETY: a socket is in the namespace, so it does not end during this call.
        net: unsafe { Namespace::until_exit(raw.net) },
        local: &of_net.local,
        command: raw.command as u8,
        // SAFETY: the attributes of the request's skb, which stays during the call, and which nobody writes any more.
        attributes: unsafe { core::slice::from_raw_parts(raw.attributes.cast(), raw.length) },
        sender,
        port: raw.port,
        sessions: &of_net.sessions,
    };
    // SAFETY: the tail room of the answer's skb, which is nobody else's, and which netlink.c has made zero.
    let bytes = unsafe { core::slice::from_raw_parts_mut(room.cast::<u8>(), *size) };
    let mut answer = Writer::new(bytes);
    let result = call(&request, &mut answer);
    *size = answer.written();
    match result {
        Ok(part) => {
            raw.generation = part.generation;
            part.written.into()
        }
        Err(refused) => {
            raw.message = match refused.message {
                Some(message) => message.as_ptr().cast(),
                None => core::ptr::null(),
            };
            raw.offset = refused.offset.unwrap_or(usize::MAX);
            refused.errno
        }
    }
}

unsafe extern "C" fn request<F: Family>(
    raw: *mut bindings::mxp_netlink_request,
    room: *mut c_void,
    size: *mut usize,
) -> c_int {
    // SAFETY: netlink.c calls this as `with_request` demands.
    unsafe {
        with_request::<F>(raw, room, size, |request, answer| {
            F::request(request, answer).map(|()| Part::END)
        })
    }
}

unsafe extern "C" fn dump<F: Family>(
    raw: *mut bindings::mxp_netlink_request,
    position: *mut u64,
    room: *mut c_void,
    size: *mut usize,
) -> c_int {
    // SAFETY: netlink.c gives the dump's own memory, aligned, for the time of this call.
    let position = unsafe { &mut *position.cast::<Position>() };
    // SAFETY: netlink.c calls this as `with_request` demands.
    unsafe {
        with_request::<F>(raw, room, size, |request, message| {
            F::dump(request, position, message)
        })
    }
}

unsafe extern "C" fn enter<F: Family>(
    target: *mut c_void,
    net: *mut bindings::net,
) -> *mut c_void {
    // SAFETY: `Registered` gave this pointer, and keeps the box until no call is under way.
    let inner = unsafe { &*target.cast_const().cast::<Inner<F>>() };
    // SAFETY: the namespace begins.
    let net = unsafe { Namespace::until_exit(net) };
    // SAFETY: netlink.c calls `end` with this.
    match unsafe { OfNet::new(&inner.family, &net) } {
        Ok(of_net) => KBox::into_raw(of_net).cast(),
        Err(error) => core::ptr::without_provenance_mut(error.to_errno() as usize),
    }
}

unsafe extern "C" fn released<F: Family>(pointer: *mut c_void, port: u32) {
    // SAFETY: a socket is in the namespace.
    unsafe { of_net::<F>(pointer) }.sessions.release(port);
}

unsafe extern "C" fn leave<F: Family>(pointer: *mut c_void) {
    // SAFETY: the namespace's end has not come yet.
    F::leave(&unsafe { of_net::<F>(pointer) }.local);
}

unsafe extern "C" fn end<F: Family>(pointer: *mut c_void) {
    // SAFETY: from `enter`, and netlink.c does not use it any more.
    drop(unsafe { KBox::from_raw(pointer.cast::<OfNet<F>>()) });
}

/// Whether somebody in the namespace listens to events. Only while the family is registered.
pub(crate) fn is_heard(net: &Namespace) -> bool {
    // SAFETY: the namespace does not end meanwhile, since it waits for the reference.
    unsafe { bindings::mxp_netlink_is_heard(net.as_ptr()) }
}

/// Tells those who listen in the namespace of an event with these attributes. Sleeps. Only while the family is registered.
pub(crate) fn tell(
    net: &Namespace,
    command: u8,
    write: impl FnOnce(&mut Writer<'_>) -> Result<(), NoRoom>,
) {
    // As much as any event takes.
    let mut bytes = [0; 256];
    let mut event = Writer::new(&mut bytes);
    if write(&mut event).is_err() {
        return;
    }
    let length = event.written();
    // SAFETY: as in `is_heard`; so many bytes are there.
    unsafe { bindings::mxp_netlink_tell(net.as_ptr(), command, bytes.as_ptr().cast(), length) };
}

/// Keeps the module from being unloaded.
pub(crate) struct ModuleInUse(());

impl ModuleInUse {
    /// ENODEV: the module is being unloaded.
    pub(crate) fn new() -> Result<Self> {
        // SAFETY: may be called in any task.
        match unsafe { bindings::mxp_module_get() } {
            true => Ok(Self(())),
            false => Err(ENODEV),
        }
    }
}

impl Drop for ModuleInUse {
    fn drop(&mut self) {
        // SAFETY: got in `new`. The caller is a call of netlink.c, for whose end unregistering waits.
        unsafe { bindings::mxp_module_put() };
    }
}
