//! A share that the same user stays in.
//!
//! The key of a request (a cookie, a header, the address) is hashed to one of 10 000 buckets, and the shares are laid
//! over the buckets, the newest release first. So a key meets one release for as long as the shares stand; when the
//! newest release's share rises, nobody who had it loses it, and when it falls, only those beyond the new edge do.
//!
//! The hash is SipHash-2-4 (Aumasson and Bernstein 2012) with keys of our own: `k0` is the hash of the service's name
//! under the key 0, so that the same user is not first for every service, and `k1` the newest release's revision, so that
//! the same user is not first for every release. It is the same on every worker and machine, and after any update.

use evenkeel_core::choice::StickyBy;
use evenkeel_core::ids::{Revision, ServiceName};
use http::{HeaderMap, HeaderName, HeaderValue};
use siphasher::sip::SipHasher24;

use crate::cookies::Cookie;
use crate::headers::{Sender, is_secure};
use crate::marks::Jar;

/// The cookie that tells visitors apart where nothing else does.
const VISITOR: &str = "evenkeel-visitor";

/// What decides between the shares.
pub(crate) struct Sticky {
    by: Key,
    hasher: SipHasher24,
    /// Index and weight of each release that has one, the newest first.
    shares: Vec<(usize, u32)>,
}

enum Key {
    Header(HeaderName),
    Cookie(Cookie),
    Address,
    Visitor(Cookie),
}

/// A visitor met for the first time: the field that gives them their cookie.
pub(crate) struct Newcomer(Box<HeaderValue>);

/// Where a request goes by its key.
pub(crate) struct Stuck {
    /// Index of the release.
    pub(crate) release: usize,
    /// The hash of the key: names the user.
    pub(crate) user: u64,
    /// Whether they are asked for cookies, and how those are sent.
    pub(crate) jar: Option<Jar>,
    pub(crate) newcomer: Option<Newcomer>,
}

/// Releases of a table with their weights, in the order of the table.
pub(crate) type Shares<'a> = dyn Iterator<Item = (Revision, u32)> + 'a;

impl Sticky {
    /// `None` where nothing is to be decided, since one release has everything or none has anything.
    pub(crate) fn new(by: &StickyBy, service: &ServiceName, shares: &mut Shares<'_>) -> Option<Self> {
        let by = match by {
            StickyBy::Header(name) => Key::Header(HeaderName::from_bytes(name.as_bytes()).ok()?),
            StickyBy::Cookie(name) => Key::Cookie(Cookie::named(name)),
            StickyBy::ClientAddress => Key::Address,
            StickyBy::Visitor => Key::Visitor(Cookie::named(VISITOR)),
        };
        let mut weighted: Vec<(usize, (Revision, u32))> =
            shares.enumerate().filter(|(_, (_, weight))| *weight > 0).collect();
        weighted.sort_by_key(|(_, (revision, _))| std::cmp::Reverse(*revision));
        let [(_, (newest, _)), _, ..] = weighted[..] else { return None };
        let hasher = SipHasher24::new_with_keys(SipHasher24::new().hash(service.as_str().as_bytes()), newest.0.into());
        let shares = weighted.into_iter().map(|(index, (_, weight))| (index, weight)).collect();
        Some(Self { by, hasher, shares })
    }

    /// Chooses the release of a request by its key; `None` when it has none.
    pub(crate) fn choose(&self, headers: &HeaderMap, sender: &Sender, random: &mut fastrand::Rng) -> Option<Stuck> {
        let some = |key: &&[u8]| !key.is_empty();
        let key = match &self.by {
            Key::Header(name) => headers.get(name).map(HeaderValue::as_bytes).filter(some)?,
            Key::Cookie(cookie) => cookie.values(headers).next().filter(some)?,
            Key::Address => sender.user(headers),
            Key::Visitor(cookie) => match cookie.values(headers).next().filter(some) {
                Some(known) => known,
                None => {
                    let name = format!("{:032x}", random.u128(..));
                    let newcomer = Some(Newcomer::new(&name, is_secure(headers, sender)));
                    let jar = self.jar(headers, sender);
                    return Some(Stuck { newcomer, jar, ..self.by_key(name.as_bytes()) });
                }
            },
        };
        Some(Stuck { jar: self.jar(headers, sender), ..self.by_key(key) })
    }

    /// Whoever is known by a cookie keeps others, too.
    fn jar(&self, headers: &HeaderMap, sender: &Sender) -> Option<Jar> {
        let has_cookies = matches!(self.by, Key::Cookie(_) | Key::Visitor(_));
        has_cookies.then(|| Jar { is_secure: is_secure(headers, sender) })
    }

    fn by_key(&self, key: &[u8]) -> Stuck {
        let user = self.hasher.hash(key);
        Stuck { release: self.by_bucket(bucket(user)), user, jar: None, newcomer: None }
    }

    fn by_bucket(&self, mut left: u32) -> usize {
        let (last, others) = self.shares.split_last().expect("two releases at least have a share");
        for (index, weight) in others {
            if left < *weight {
                return *index;
            }
            left -= weight;
        }
        last.0
    }
}

/// 0 to 9 999, each as likely as the others to within one in 10¹⁵ (Lemire 2019).
fn bucket(hash: u64) -> u32 {
    let scaled = (u128::from(hash) * 10_000) >> 64;
    u32::try_from(scaled).expect("below 10 000")
}

impl Newcomer {
    fn new(name: &str, secure: bool) -> Self {
        let secure = if secure { "; Secure" } else { "" };
        let cookie = format!("{VISITOR}={name}; Path=/; Max-Age=2592000; HttpOnly; SameSite=Lax{secure}");
        Self(Box::new(HeaderValue::try_from(cookie).expect("digits and words fit a header")))
    }

    /// What `Set-Cookie` says.
    pub(crate) fn cookie(self) -> HeaderValue {
        *self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sender(address: &str) -> Sender {
        Sender::new(address.parse().unwrap(), false, std::rc::Rc::default())
    }

    fn sticky(by: &StickyBy, service: &str, shares: &[(u32, u32)]) -> Option<Sticky> {
        let service = ServiceName::new(service).unwrap();
        Sticky::new(by, &service, &mut shares.iter().map(|(revision, weight)| (Revision(*revision), *weight)))
    }

    fn by_user(shares: &[(u32, u32)]) -> Sticky {
        sticky(&StickyBy::Header("X-User".into()), "web", shares).unwrap()
    }

    fn headers(name: &'static str, value: &str) -> HeaderMap {
        [(HeaderName::from_static(name), HeaderValue::from_str(value).unwrap())].into_iter().collect()
    }

    #[test]
    fn a_key_has_its_bucket_for_ever() {
        // Computed apart from this program, by the definition in the paper and the rules above.
        let bucket_of = |service, newest, key: &str| {
            let sticky = sticky(&StickyBy::Visitor, service, &[(1, 5_000), (newest, 5_000)]).unwrap();
            bucket(sticky.hasher.hash(key.as_bytes()))
        };
        assert_eq!(bucket_of("web", 2, "ada"), 3_587);
        assert_eq!(bucket_of("web", 3, "ada"), 6_658);
        assert_eq!(bucket_of("api", 2, "ada"), 6_550);
        assert_eq!(bucket_of("web", 2, "grace"), 3_984);
        assert_eq!(bucket_of("web", 2, "192.0.2.7"), 3_038);
        assert_eq!(bucket_of("web", 2, "00000000000000000000000000000000"), 1_397);
        let meets = |share| by_user(&[(1, 10_000 - share), (2, share)]).by_key(b"ada").release;
        assert_eq!([meets(3_587), meets(3_588)], [0, 1], "the newest release has the buckets from 0 on");
        let paper = SipHasher24::new_with_keys(0x0706_0504_0302_0100, 0x0f0e_0d0c_0b0a_0908);
        assert_eq!(paper.hash(&[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14]), 0xa129_ca61_49be_45e5);
    }

    #[test]
    fn shares_hold_over_a_hundred_thousand_keys_whatever_their_order_in_the_table() {
        for shares in [[(1, 9_450), (2, 550)], [(2, 550), (1, 9_450)]] {
            let (sticky, newest) = (by_user(&shares), usize::from(shares[0].0 == 1));
            let new = (0..100_000).filter(|n| sticky.by_key(format!("user-{n}").as_bytes()).release == newest).count();
            // Four standard deviations of a binomial count: √(n·p·(1−p)) is 72.
            assert!(new.abs_diff(5_500) < 4 * 72, "{new}");
        }
    }

    #[test]
    fn a_rising_share_moves_nobody_back_and_a_falling_one_only_those_beyond_it() {
        let shares = [1, 500, 2_000, 5_000, 9_999, 5_000, 500];
        let keys: Vec<String> = (0..20_000).map(|n| format!("{n}")).collect();
        let new_for = |share: u32| -> Vec<bool> {
            let sticky = by_user(&[(1, 10_000 - share), (2, share)]);
            keys.iter().map(|key| sticky.by_key(key.as_bytes()).release == 1).collect()
        };
        for pair in shares.windows(2) {
            let (before, after) = (new_for(pair[0]), new_for(pair[1]));
            let moved = |from: bool| before.iter().zip(&after).filter(|(b, a)| **b == from && **a != from).count();
            let (forth, back) = (moved(false), moved(true));
            let (of_those, others) = if pair[1] > pair[0] { (forth, back) } else { (back, forth) };
            let expected = 2 * pair[0].abs_diff(pair[1]) as usize;
            assert_eq!(others, 0, "{pair:?}");
            assert!(of_those.abs_diff(expected) < 300, "{pair:?}: {of_those} of {expected}");
        }
    }

    #[test]
    fn services_and_releases_are_independent_of_one_another() {
        let first = |service, newest| {
            let sticky = sticky(&StickyBy::ClientAddress, service, &[(1, 9_000), (newest, 1_000)]).unwrap();
            move |n: &u32| sticky.by_key(&n.to_be_bytes()).release == 1
        };
        let (web, api, next) = (first("web", 2), first("api", 2), first("web", 3));
        let both = |other: &dyn Fn(&u32) -> bool| (0..100_000).filter(|n| web(n) && other(n)).count();
        // A tenth of a tenth; the standard deviation is 100.
        assert!(both(&api).abs_diff(1_000) < 400 && both(&next).abs_diff(1_000) < 400);
    }

    #[test]
    fn where_one_release_has_everything_there_is_nothing_to_stick_to() {
        for shares in [&[(1, 10_000), (2, 0)][..], &[(1, 0), (2, 0)], &[]] {
            assert!(sticky(&StickyBy::Visitor, "web", shares).is_none());
        }
    }

    #[test]
    fn a_request_without_the_key_does_not_stick() {
        let mut random = fastrand::Rng::with_seed(1);
        let (sticky, from) = (by_user(&[(1, 5_000), (2, 5_000)]), sender("192.0.2.1"));
        assert!(sticky.choose(&HeaderMap::new(), &from, &mut random).is_none());
        assert!(sticky.choose(&headers("x-user", ""), &from, &mut random).is_none());
        assert!(sticky.choose(&headers("x-user", "ada"), &from, &mut random).is_some());
    }

    #[test]
    fn a_visitor_is_decided_by_the_cookie_they_are_given() {
        let mut random = fastrand::Rng::with_seed(1);
        let (sticky, from) = (sticky(&StickyBy::Visitor, "web", &[(1, 5_000), (2, 5_000)]).unwrap(), sender("::1"));
        let mut met = [0; 2];
        for _ in 0..100 {
            let Stuck { release, user, newcomer, .. } = sticky.choose(&HeaderMap::new(), &from, &mut random).unwrap();
            let cookie = newcomer.unwrap().cookie();
            let (name, rules) = cookie.to_str().unwrap().split_once("; ").unwrap();
            assert_eq!(rules, "Path=/; Max-Age=2592000; HttpOnly; SameSite=Lax");
            assert_eq!(name.len(), "evenkeel-visitor=".len() + 32);
            let again = sticky.choose(&headers("cookie", name), &from, &mut random).unwrap();
            assert_eq!((again.release, again.user), (release, user));
            assert!(again.newcomer.is_none());
            met[release] += 1;
        }
        assert!(met.iter().all(|times| *times > 20), "{met:?}");
        let secure =
            sticky.choose(&headers("x-forwarded-proto", "https"), &from, &mut random).unwrap().newcomer.unwrap();
        assert!(secure.cookie().to_str().unwrap().ends_with("; SameSite=Lax; Secure"));
    }
}
