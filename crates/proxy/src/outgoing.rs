//! A client's request, made ready to be sent to a replica, and whether it may be sent twice.

use std::rc::Rc;

use evenkeel_core::edge::Protocol;
use http::{Method, Request, Version};
use hyper::body::{Body, Incoming};
use hyper::upgrade::OnUpgrade;
use tokio::time::Instant;

use crate::body::{RequestBody, Upload};
use crate::headers::{Sender, may_upgrade, prepare_request, to_origin_form};
use crate::shield::Shield;

/// A request on its way out.
pub(crate) struct Outgoing {
    /// Absent while it is being sent, and when it has been.
    request: Option<Request<RequestBody>>,
    method: Method,
    /// The operator says that it may be carried out twice, whatever its method.
    marked: bool,
    /// Present when the client sends a body.
    pub(crate) upload: Option<Rc<Upload>>,
    /// The client wants to speak another protocol.
    pub(crate) upgrade: bool,
}

/// Who may have a request sent again.
pub(crate) struct Keeping<'a> {
    /// In place of the release that was chosen.
    pub(crate) shield: Option<&'a Shield>,
    /// Another release answers copies for nobody.
    pub(crate) copied: bool,
}

impl Keeping<'_> {
    fn is_wanted(&self) -> bool {
        self.shield.is_some() || self.copied
    }
}

impl Outgoing {
    /// Makes a client's request fit to be sent, and keeps what it takes to send it again where somebody may want that.
    pub(crate) fn prepare(
        request: Request<Incoming>,
        from: &Sender,
        now: Instant,
        keeping: Keeping<'_>,
        replicas: Protocol,
    ) -> Self {
        let marked = keeping.shield.is_some_and(|shield| shield.is_idempotent(request.uri().path()));
        let (mut parts, incoming) = request.into_parts();
        // hyper leaves a promise here when `Connection` and `Upgrade` agree; the tunnel takes the socket another way.
        let promised = parts.extensions.remove::<OnUpgrade>().is_some();
        let upgrade = promised && replicas == Protocol::Http1 && may_upgrade(&parts.headers);
        to_origin_form(&mut parts.uri);
        parts.version = Version::HTTP_11;
        prepare_request(&mut parts.headers, from, upgrade);
        let method = parts.method.clone();
        let upload = (!incoming.is_end_stream()).then(|| Rc::new(Upload::begin(incoming, now)));
        let body = upload.as_ref().map_or(RequestBody::Empty, Upload::body);
        let outgoing = Self { request: Some(Request::from_parts(parts, body)), method, marked, upload, upgrade };
        if let Some(upload) = outgoing.upload.as_ref().filter(|_| keeping.is_wanted() && outgoing.may_be_repeated()) {
            upload.keep();
        }
        outgoing
    }

    /// Hands the request out to be sent.
    pub(crate) fn take(&mut self) -> Request<RequestBody> {
        self.request.take().expect("put back before every further attempt")
    }

    /// Takes back what was not sent; tells whether there was anything.
    pub(crate) fn put_back(&mut self, unsent: Option<Request<RequestBody>>) -> bool {
        self.request = unsent;
        self.request.is_some()
    }

    /// Tells whether nothing of it was sent since it was made.
    pub(crate) fn is_unsent(&self) -> bool {
        self.request.is_some()
    }

    /// Makes the request anew from its head and what was kept of its body.
    pub(crate) fn repeat(&mut self, head: Request<()>, from: &Sender) {
        let body = self.upload.as_ref().map_or(RequestBody::Empty, Upload::body);
        self.request = Some(again(head, body, from));
    }

    /// Doing it twice is doing it once (RFC 9110, 9.2.2), and its head is all of it.
    pub(crate) fn is_repeatable(&self) -> bool {
        let idempotent = [Method::PUT, Method::DELETE, Method::TRACE].contains(&self.method) || self.is_safe();
        idempotent && self.is_head_only()
    }

    /// Doing it changes nothing (RFC 9110, 9.2.1), and its head is all of it.
    pub(crate) fn is_harmless(&self) -> bool {
        self.is_safe() && self.is_head_only()
    }

    /// Another release may carry it out after one has failed it, and all of it that has come is here.
    pub(crate) fn is_sparable(&self) -> bool {
        self.may_be_repeated() && !self.upgrade && self.upload.as_ref().is_none_or(|upload| upload.is_kept())
    }

    /// What a copy of it has as its body; `None` when it must not be copied, or its body is not here.
    pub(crate) fn copied_body(&self) -> Option<RequestBody> {
        if !self.is_safe() || self.upgrade {
            return None;
        }
        self.upload.as_ref().map_or(Some(RequestBody::Empty), Upload::whole)
    }

    fn may_be_repeated(&self) -> bool {
        self.marked || self.is_safe()
    }

    fn is_safe(&self) -> bool {
        [Method::GET, Method::HEAD, Method::OPTIONS].contains(&self.method)
    }

    fn is_head_only(&self) -> bool {
        self.upload.is_none() && !self.upgrade
    }
}

/// A request made from a head as the client sent it.
pub(crate) fn again(head: Request<()>, body: RequestBody, from: &Sender) -> Request<RequestBody> {
    let mut request = head.map(|()| body);
    to_origin_form(request.uri_mut());
    prepare_request(request.headers_mut(), from, false);
    request
}
