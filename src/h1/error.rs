//! What can be wrong with a message: one variant for each rule, holding what was found.
//!
//! A broken rule is never repaired and never skipped: two recipients that repair differently are
//! what smuggling is made of (RFC 9112 §11.2). The error knows its section and, where a client
//! broke the rule, the answer. Where an origin broke it the caller answers 502.

use std::fmt;

use crate::base::ProxyError;
use crate::base::units::ByteCount;

/// A rule of HTTP/1.1, or a limit of ours, that a message breaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MessageError {
    /// More than one empty line before a request line.
    EmptyLines,
    /// LF without CR before it.
    BareLineFeed,
    /// CR without LF after it.
    BareCarriageReturn,
    /// The method is empty.
    MethodMissing,
    /// An octet that no token has, in the method.
    MethodOctet {
        /// The octet.
        octet: u8,
    },
    /// The method is longer than any method.
    MethodTooLong,
    /// A request line that is not three parts between single spaces.
    RequestLineShape,
    /// An octet that no target has: a control octet, a space, `#`, or one that is not ASCII.
    TargetOctet {
        /// The octet.
        octet: u8,
    },
    /// The target is longer than allowed.
    TargetTooLong {
        /// The limit.
        limit: ByteCount,
    },
    /// The target has none of the four forms, or one that its method does not have.
    TargetForm,
    /// The version is not `HTTP/` DIGIT `.` DIGIT.
    VersionMalformed,
    /// A major version other than 1.
    VersionUnsupported {
        /// The major version.
        major: u8,
    },
    /// A status line that is not version, three digits and perhaps a reason.
    StatusLineShape,
    /// A status outside of 100 to 599.
    StatusRange {
        /// The status.
        status: u16,
    },
    /// A control octet in the reason phrase.
    ReasonOctet {
        /// The octet.
        octet: u8,
    },
    /// The head is longer than allowed.
    HeadTooLong {
        /// The limit.
        limit: ByteCount,
    },
    /// The head has more field lines than allowed.
    FieldsTooMany {
        /// The limit.
        limit: u32,
    },
    /// A field line that begins with white space: obsolete folding, or a hidden first line.
    Folded,
    /// A field line without a name.
    NameMissing,
    /// A field line without a colon.
    ColonMissing,
    /// White space between a name and its colon.
    SpaceBeforeColon,
    /// An octet that no token has, in a field name.
    NameOctet {
        /// The octet.
        octet: u8,
    },
    /// A control octet in a field value.
    ValueOctet {
        /// The octet.
        octet: u8,
    },
    /// An HTTP/1.1 request without `Host`.
    HostMissing,
    /// More than one `Host` line.
    HostRepeated,
    /// The host, or its port, is not what RFC 3986 calls one.
    HostMalformed,
    /// The authority has user information.
    UserInfo,
    /// `Host` contradicts the target's authority.
    HostMismatch,
    /// `Content-Length` is not one number.
    LengthMalformed,
    /// More than one `Content-Length`, equal or not.
    LengthRepeated,
    /// Both `Transfer-Encoding` and `Content-Length`.
    LengthAndCoding,
    /// `Transfer-Encoding` in an HTTP/1.0 message.
    CodingInHttp10,
    /// More than one `Transfer-Encoding` line.
    CodingRepeated,
    /// `Transfer-Encoding` is not a list of codings, or `chunked` is in it but not last.
    CodingMalformed,
    /// A transfer coding that we do not know.
    CodingUnknown,
    /// A chunk-size line without a size.
    ChunkSizeMissing,
    /// An octet in a chunk-size line that has no business there.
    ChunkSizeOctet {
        /// The octet.
        octet: u8,
    },
    /// More digits of a chunk size than any length has.
    ChunkSizeTooLong {
        /// How many.
        digits: usize,
    },
    /// A control octet, or a bare CR or LF, among the chunk extensions.
    ChunkExtensionOctet {
        /// The octet.
        octet: u8,
    },
    /// A chunk-size line longer than allowed.
    ChunkLineTooLong {
        /// The limit.
        limit: ByteCount,
    },
    /// More chunk extensions in one body than allowed.
    ChunkExtensionsTooLong {
        /// The limit.
        limit: ByteCount,
    },
    /// A chunk's data is not followed by CRLF.
    ChunkEnd {
        /// What stands there.
        octet: u8,
    },
    /// Far more framing than content.
    ChunkOverhead,
    /// The trailer section is longer than allowed.
    TrailersTooLong {
        /// The limit.
        limit: ByteCount,
    },
    /// More trailer fields than allowed.
    TrailersTooMany {
        /// The limit.
        limit: u32,
    },
    /// `101` that the request did not ask for.
    SwitchUnasked,
    /// More informational answers than allowed.
    InformationalTooMany {
        /// The limit.
        limit: u32,
    },
    /// An answer that no request is waiting for.
    AnswerUnasked,
}

impl MessageError {
    /// Where the rule stands.
    #[must_use]
    pub const fn section(self) -> &'static str {
        match self {
            Self::EmptyLines | Self::BareLineFeed | Self::BareCarriageReturn => "RFC 9112 §2.2",
            Self::VersionMalformed => "RFC 9112 §2.3",
            Self::VersionUnsupported { .. } => "RFC 9110 §15.6.6",
            Self::RequestLineShape | Self::TargetTooLong { .. } => "RFC 9112 §3",
            Self::MethodMissing | Self::MethodOctet { .. } | Self::MethodTooLong => "RFC 9112 §3.1",
            Self::TargetOctet { .. } | Self::TargetForm => "RFC 9112 §3.2",
            Self::HostMissing | Self::HostRepeated | Self::HostMalformed => "RFC 9112 §3.2",
            Self::UserInfo => "RFC 9110 §4.2.4",
            Self::HostMismatch => "RFC 9112 §3.2.2",
            Self::StatusLineShape | Self::ReasonOctet { .. } => "RFC 9112 §4",
            Self::StatusRange { .. } => "RFC 9110 §15",
            Self::HeadTooLong { .. } | Self::FieldsTooMany { .. } => "RFC 9110 §5.4",
            Self::NameMissing | Self::ColonMissing | Self::SpaceBeforeColon => "RFC 9112 §5.1",
            Self::NameOctet { .. } => "RFC 9110 §5.1",
            Self::Folded => "RFC 9112 §5.2",
            Self::ValueOctet { .. } => "RFC 9110 §5.5",
            Self::LengthMalformed | Self::LengthRepeated => "RFC 9112 §6.3",
            Self::LengthAndCoding
            | Self::CodingInHttp10
            | Self::CodingRepeated
            | Self::CodingMalformed
            | Self::CodingUnknown => "RFC 9112 §6.1",
            Self::ChunkSizeMissing
            | Self::ChunkSizeOctet { .. }
            | Self::ChunkSizeTooLong { .. }
            | Self::ChunkEnd { .. }
            | Self::ChunkOverhead => "RFC 9112 §7.1",
            Self::ChunkExtensionOctet { .. }
            | Self::ChunkLineTooLong { .. }
            | Self::ChunkExtensionsTooLong { .. } => "RFC 9112 §7.1.1",
            Self::TrailersTooLong { .. } | Self::TrailersTooMany { .. } => "RFC 9112 §7.1.2",
            Self::SwitchUnasked => "RFC 9110 §7.8",
            Self::InformationalTooMany { .. } => "RFC 9110 §15.2",
            Self::AnswerUnasked => "RFC 9112 §9.2",
        }
    }

    /// The answer to a client whose request breaks the rule.
    #[must_use]
    pub const fn proxy_error(self) -> ProxyError {
        match self {
            Self::TargetTooLong { .. } => ProxyError::UriTooLong,
            Self::HeadTooLong { .. } | Self::FieldsTooMany { .. } => ProxyError::HeadTooLarge,
            Self::VersionUnsupported { .. } => ProxyError::VersionUnsupported,
            // RFC 9112 §3: 501 to a method longer than any that we know.
            Self::CodingUnknown | Self::MethodTooLong => ProxyError::NotImplemented,
            Self::EmptyLines
            | Self::BareLineFeed
            | Self::BareCarriageReturn
            | Self::MethodMissing
            | Self::MethodOctet { .. }
            | Self::RequestLineShape
            | Self::TargetOctet { .. }
            | Self::TargetForm
            | Self::VersionMalformed
            | Self::StatusLineShape
            | Self::StatusRange { .. }
            | Self::ReasonOctet { .. }
            | Self::Folded
            | Self::NameMissing
            | Self::ColonMissing
            | Self::SpaceBeforeColon
            | Self::NameOctet { .. }
            | Self::ValueOctet { .. }
            | Self::HostMissing
            | Self::HostRepeated
            | Self::HostMalformed
            | Self::UserInfo
            | Self::HostMismatch
            | Self::LengthMalformed
            | Self::LengthRepeated
            | Self::LengthAndCoding
            | Self::CodingInHttp10
            | Self::CodingRepeated
            | Self::CodingMalformed
            | Self::ChunkSizeMissing
            | Self::ChunkSizeOctet { .. }
            | Self::ChunkSizeTooLong { .. }
            | Self::ChunkExtensionOctet { .. }
            | Self::ChunkLineTooLong { .. }
            | Self::ChunkExtensionsTooLong { .. }
            | Self::ChunkEnd { .. }
            | Self::ChunkOverhead
            | Self::TrailersTooLong { .. }
            | Self::TrailersTooMany { .. }
            | Self::SwitchUnasked
            | Self::InformationalTooMany { .. }
            | Self::AnswerUnasked => ProxyError::BadRequest,
        }
    }
}

impl fmt::Display for MessageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::EmptyLines => write!(f, "more than one empty line before the request line"),
            Self::BareLineFeed => write!(f, "a line ends in LF without CR"),
            Self::BareCarriageReturn => write!(f, "a CR is not followed by LF"),
            Self::MethodMissing => write!(f, "the method is empty"),
            Self::MethodOctet { octet } => write!(f, "the method holds octet {octet:#04x}"),
            Self::MethodTooLong => write!(f, "the method is longer than 32 octets"),
            Self::RequestLineShape => {
                write!(
                    f,
                    "the request line is not method, target and version between single spaces"
                )
            }
            Self::TargetOctet { octet } => write!(f, "the target holds octet {octet:#04x}"),
            Self::TargetTooLong { limit } => write!(f, "the target is longer than {limit}"),
            Self::TargetForm => write!(f, "the target has no form that its method may have"),
            Self::VersionMalformed => write!(f, "the version is not `HTTP/` digit `.` digit"),
            Self::VersionUnsupported { major } => {
                write!(f, "major version {major} is not spoken here")
            }
            Self::StatusLineShape => {
                write!(f, "the status line is not version, three digits and reason")
            }
            Self::StatusRange { status } => write!(f, "status {status} is not in 100 to 599"),
            Self::ReasonOctet { octet } => write!(f, "the reason phrase holds octet {octet:#04x}"),
            Self::HeadTooLong { limit } => write!(f, "the head is longer than {limit}"),
            Self::FieldsTooMany { limit } => write!(f, "the head has more than {limit} fields"),
            Self::Folded => write!(f, "a field line begins with white space"),
            Self::NameMissing => write!(f, "a field line has no name"),
            Self::ColonMissing => write!(f, "a field line has no colon"),
            Self::SpaceBeforeColon => write!(f, "white space stands between a name and its colon"),
            Self::NameOctet { octet } => write!(f, "a field name holds octet {octet:#04x}"),
            Self::ValueOctet { octet } => write!(f, "a field value holds octet {octet:#04x}"),
            Self::HostMissing => write!(f, "an HTTP/1.1 request has no Host"),
            Self::HostRepeated => write!(f, "there is more than one Host"),
            Self::HostMalformed => write!(f, "the host is not a host with an optional port"),
            Self::UserInfo => write!(f, "the authority holds user information"),
            Self::HostMismatch => write!(f, "Host contradicts the target's authority"),
            Self::LengthMalformed => write!(f, "Content-Length is not one decimal number"),
            Self::LengthRepeated => write!(f, "there is more than one Content-Length"),
            Self::LengthAndCoding => {
                write!(f, "both Transfer-Encoding and Content-Length are present")
            }
            Self::CodingInHttp10 => write!(f, "an HTTP/1.0 message has Transfer-Encoding"),
            Self::CodingRepeated => write!(f, "there is more than one Transfer-Encoding"),
            Self::CodingMalformed => write!(f, "Transfer-Encoding is not a list of codings"),
            Self::CodingUnknown => write!(f, "a transfer coding other than chunked is used"),
            Self::ChunkSizeMissing => write!(f, "a chunk has no size"),
            Self::ChunkSizeOctet { octet } => {
                write!(f, "a chunk-size line holds octet {octet:#04x}")
            }
            Self::ChunkSizeTooLong { digits } => write!(f, "a chunk size has {digits} digits"),
            Self::ChunkExtensionOctet { octet } => {
                write!(f, "a chunk extension holds octet {octet:#04x}")
            }
            Self::ChunkLineTooLong { limit } => {
                write!(f, "a chunk-size line is longer than {limit}")
            }
            Self::ChunkExtensionsTooLong { limit } => {
                write!(
                    f,
                    "the chunk extensions of one body are longer than {limit}"
                )
            }
            Self::ChunkEnd { octet } => {
                write!(
                    f,
                    "a chunk is followed by octet {octet:#04x} instead of CRLF"
                )
            }
            Self::ChunkOverhead => write!(f, "the chunks hold far more framing than content"),
            Self::TrailersTooLong { limit } => {
                write!(f, "the trailer section is longer than {limit}")
            }
            Self::TrailersTooMany { limit } => {
                write!(f, "the trailer section has more than {limit} fields")
            }
            Self::SwitchUnasked => write!(f, "101 was answered to a request without that Upgrade"),
            Self::InformationalTooMany { limit } => {
                write!(
                    f,
                    "more than {limit} informational answers came before the final one"
                )
            }
            Self::AnswerUnasked => write!(f, "an answer came that no request is waiting for"),
        }
    }
}

impl std::error::Error for MessageError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_have_their_own_answers() {
        let limit = ByteCount(1);
        assert_eq!(
            MessageError::TargetTooLong { limit }.proxy_error().status(),
            414
        );
        assert_eq!(
            MessageError::HeadTooLong { limit }.proxy_error().status(),
            431
        );
        assert_eq!(
            MessageError::FieldsTooMany { limit: 1 }
                .proxy_error()
                .status(),
            431
        );
        assert_eq!(MessageError::CodingUnknown.proxy_error().status(), 501);
        assert_eq!(
            MessageError::VersionUnsupported { major: 2 }
                .proxy_error()
                .status(),
            505
        );
        assert_eq!(MessageError::LengthAndCoding.proxy_error().status(), 400);
    }

    #[test]
    fn an_error_is_a_lower_case_clause_with_its_section() {
        let error = MessageError::ChunkSizeTooLong { digits: 17 };
        assert_eq!(error.to_string(), "a chunk size has 17 digits");
        assert_eq!(error.section(), "RFC 9112 §7.1");
    }
}
