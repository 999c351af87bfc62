//! Why a call failed: one number for the runtime, one code and one remedy for people.

use api::cni::{CniVersion, ErrorNumber, ErrorObject};
use model::{Code, Explain, with_causes};

/// A call that failed.
#[derive(Debug)]
pub(crate) struct Failure {
    number: ErrorNumber,
    code: Code,
    message: String,
    remedy: Option<String>,
}

impl Failure {
    /// Takes an error whose number is known.
    pub(crate) fn of(number: ErrorNumber, error: &dyn Explain) -> Self {
        Self {
            number,
            code: error.code(),
            message: with_causes(error),
            remedy: error.remedy(),
        }
    }

    /// Takes an error whose code tells its number.
    pub(crate) fn explained(error: &dyn Explain) -> Self {
        Self::of(number_of(error.code()), error)
    }

    /// Says what virtfn itself refuses.
    pub(crate) fn new(code: &'static str, message: String, remedy: &str) -> Self {
        let code = Code::new(code);
        Self {
            number: number_of(code),
            code,
            message,
            remedy: Some(remedy.to_owned()),
        }
    }

    /// Passes on what a delegate said.
    pub(crate) fn delegated(error: ErrorObject, message: String) -> Self {
        Self {
            number: error.code,
            code: Code::new("ipam-failed"),
            message,
            remedy: Some(error.details).filter(|details| !details.is_empty()),
        }
    }

    /// Says that nobody reads the answer.
    pub(crate) fn unheard(error: &std::io::Error) -> Self {
        Self::new(
            "stdout",
            format!("write the result to stdout: {error}"),
            "let the runtime read what the plugin writes",
        )
    }

    /// Says in what attempt it happened, and one more way out.
    pub(crate) fn during(mut self, attempt: &str, way_out: &str) -> Self {
        self.message = format!("{attempt}: {}", self.message);
        self.remedy = Some(match self.remedy {
            Some(remedy) => format!("{remedy}; {way_out}"),
            None => way_out.to_owned(),
        });
        self
    }

    /// Adds what failed besides.
    pub(crate) fn and(mut self, other: &Self) -> Self {
        self.message.push_str("; then ");
        self.message.push_str(&other.message);
        self
    }

    /// Joins failures into one; `None` when there were none.
    pub(crate) fn join(failures: Vec<Self>) -> Option<Self> {
        failures.into_iter().reduce(|first, next| first.and(&next))
    }

    pub(crate) fn with_number(mut self, number: ErrorNumber) -> Self {
        self.number = number;
        self
    }

    pub(crate) fn number(&self) -> ErrorNumber {
        self.number
    }

    pub(crate) fn code(&self) -> Code {
        self.code
    }

    pub(crate) fn message(&self) -> &str {
        &self.message
    }

    /// Makes the object that the runtime reads.
    ///
    /// containerd takes a DEL that failed with `not found` in its text for done, and never comes
    /// back. So these words do not occur in what a DEL says.
    pub(crate) fn to_object(&self, version: Option<CniVersion>, is_del: bool) -> ErrorObject {
        let version = version.unwrap_or(CniVersion::NEWEST);
        let details = match &self.remedy {
            Some(remedy) => format!("{}: {remedy}", self.code),
            None => self.code.to_string(),
        };
        let plain = |text: &str| {
            if is_del {
                text.replace("not found", "missing")
                    .replace("no such file or directory", "missing file")
            } else {
                text.to_owned()
            }
        };
        ErrorObject::new(version, self.number, plain(&self.message), plain(&details))
    }
}

/// Gives a code its number in the CNI specification.
fn number_of(code: Code) -> ErrorNumber {
    match code.as_str() {
        "vf-in-use"
        | "locked"
        | "vf-vanishing"
        | "kernel-timeout"
        | "busy"
        | "ib-kubernetes-not-ready" => ErrorNumber::TRY_AGAIN,
        "bad-mac"
        | "macs-differ"
        | "bad-rate"
        | "not-a-vf"
        | "no-such-vf"
        | "no-netdev"
        | "interface-name-taken"
        | "bad-interface-name"
        | "not-chained"
        | "no-rdma"
        | "bad-guid"
        | "ipam-missing"
        | "pf-without-netdev" => ErrorNumber::BAD_CONFIG,
        "not-supported" => ErrorNumber::UNSUPPORTED_FIELD,
        "netns-gone" | "not-a-netns" | "netns-not-accessible" | "own-netns" => {
            ErrorNumber::BAD_NETNS
        }
        "state-full" | "state-not-permitted" | "state-not-accessible" | "stdin" | "stdout" => {
            ErrorNumber::IO
        }
        "ipam-answer" => ErrorNumber::DECODE,
        _ => ErrorNumber::INTERNAL,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_del_does_not_say_what_containerd_takes_for_done() {
        let failure = Failure::new("x", "link net1 not found".to_owned(), "make it");
        let told = failure.to_object(None, true);
        assert_eq!(told.msg, "link net1 missing");
        assert_eq!(told.details, "x: make it");
        assert_eq!(failure.to_object(None, false).msg, "link net1 not found");
    }

    #[test]
    fn a_vf_in_use_is_worth_another_try() {
        let failure = Failure::new("vf-in-use", String::new(), "");
        assert_eq!(failure.to_object(None, false).code, ErrorNumber::TRY_AGAIN);
    }
}
