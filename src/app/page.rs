//! The page at `/`: live figures for a person with a browser, by polling the JSON of the admin plane.
//!
//! One file without any outside resource, so that it works where there is no internet. The policy
//! lets the browser run the one script whose hash it names, and nothing that a peer's name or
//! address might smuggle in.

/// The page.
pub const HTML: &str = include_str!("page.html");

/// Its `Content-Security-Policy` (CSP level 3).
pub const POLICY: &str = "default-src 'none'; connect-src 'self'; style-src 'unsafe-inline'; \
    script-src 'sha256-AJsTvTiXBO8EV9Ru8HN/7CoDDsQlw1wUMjOTEvqlm6Q='; \
    base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

#[cfg(test)]
mod tests {
    use super::*;
    use sha2::Digest;
    use sha2::Sha256;

    fn base64(octets: &[u8]) -> String {
        const SIGNS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
        let mut out = String::new();
        for chunk in octets.chunks(3) {
            let three = (0..3).fold(0, |n, at| n << 8 | u32::from(*chunk.get(at).unwrap_or(&0)));
            for at in 0..=chunk.len() {
                out.push(char::from(SIGNS[(three >> (18 - 6 * at) & 63) as usize]));
            }
        }
        out.push_str(&"=="[..(3 - octets.len() % 3) % 3]);
        out
    }

    #[test]
    fn the_policy_names_the_script_that_is_in_the_page() {
        let (_, rest) = HTML.split_once("<script>").unwrap();
        let (script, rest) = rest.split_once("</script>").unwrap();
        let hash = base64(&Sha256::digest(script));
        assert!(
            POLICY.contains(&format!("'sha256-{hash}'")),
            "now sha256-{hash}"
        );
        assert!(!rest.contains("<script"));
    }

    #[test]
    fn the_page_needs_nothing_from_outside() {
        assert!(!HTML.contains("http://") && !HTML.contains("https://") && !HTML.contains("src="));
    }

    #[test]
    fn the_page_sets_nothing_as_markup() {
        assert!(!HTML.contains("innerHTML") && !HTML.contains("document.write"));
    }
}
