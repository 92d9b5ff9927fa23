//! Real programs on both sides: nginx, Node, Python and gunicorn or uvicorn as origins; curl, wrk and
//! h2load as clients. Bodies are compared by hash.
//!
//! A test is skipped, with its reason printed, only where a program is not on the machine. With
//! `IT_HEAVY=1` bodies go up to 1 GiB, else to 64 MiB.

use std::io::Read;
use std::io::Write;
use std::path::PathBuf;
use std::process::Command;
use std::process::Stdio;

use sha2::Digest;
use sha2::Sha256;

use crate::support::Proxy;
use crate::support::bodies;
use crate::support::program::PIECE_OCTETS;
use crate::support::program::Port;
use crate::support::program::Program;
use crate::support::program::folder_with_piece;
use crate::support::program::found;
use crate::support::program::python_with;
use crate::support::program::script;

fn sizes() -> Vec<u64> {
    let mut sizes = vec![0, 1, 65536, 1 << 20, 64 << 20];
    if std::env::var_os("IT_HEAVY").is_some() {
        sizes.push(1 << 30);
    }
    sizes
}

/// Calls `take` with the octets that all origins here give for this size.
fn each_piece(size: u64, mut take: impl FnMut(&[u8])) {
    let piece = bodies::body(PIECE_OCTETS);
    let mut left = size;
    while left > 0 {
        let now = usize::try_from(left.min(piece.len() as u64)).unwrap();
        take(&piece[..now]);
        left -= now as u64;
    }
}

fn hash_of(size: u64) -> String {
    let mut hasher = Sha256::new();
    each_piece(size, |piece| hasher.update(piece));
    hex(hasher)
}

fn hex(hasher: Sha256) -> String {
    hasher
        .finalize()
        .iter()
        .map(|octet| format!("{octet:02x}"))
        .collect()
}

/// Runs curl and hashes what it writes: the number of octets and the hash.
fn curl_hash(arguments: &[&str], url: &str) -> (u64, String) {
    let mut child = Command::new("curl")
        .args(["--silent", "--show-error", "--fail", "--max-time", "300"])
        .args(arguments)
        .arg(url)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut out = child.stdout.take().unwrap();
    let (mut hasher, mut size, mut buffer) = (Sha256::new(), 0, vec![0; 1 << 16]);
    loop {
        let count = out.read(&mut buffer).unwrap();
        if count == 0 {
            break;
        }
        hasher.update(&buffer[..count]);
        size += count as u64;
    }
    let status = child.wait().unwrap();
    assert!(status.success(), "curl {arguments:?} {url}: {status}");
    (size, hex(hasher))
}

/// Runs curl and returns what it wrote.
fn curl(arguments: &[&str], url: &str) -> String {
    let mut command = Command::new("curl");
    command
        .args(["--silent", "--show-error", "--max-time", "300"])
        .args(arguments)
        .arg(url);
    let output = command.output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "curl {arguments:?} {url}: {errors}"
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn downloads(proxy: &Proxy, framings: &[&str]) {
    let address = proxy.address();
    for framing in framings {
        for size in sizes() {
            let url = format!("http://{address}/{framing}/{size}");
            for version in ["--http1.1", "--http1.0"] {
                let got = curl_hash(&[version], &url);
                assert_eq!(got, (size, hash_of(size)), "{version} {framing}/{size}");
            }
        }
    }
}

/// Uploads with a length, in chunks, and after 100-continue; the origin answers with the hash.
fn uploads(proxy: &Proxy, folder: &std::path::Path) {
    let url = format!("http://{}/upload/x", proxy.address());
    for size in sizes() {
        let file = folder.join(format!("upload-{size}"));
        let mut writer = std::io::BufWriter::new(std::fs::File::create(&file).unwrap());
        each_piece(size, |piece| writer.write_all(piece).unwrap());
        drop(writer);
        let path = file.to_str().unwrap();
        let ways: [&[&str]; 4] = [
            &["--http1.1", "-H", "Expect:"],
            &["--http1.0", "-H", "Expect:"],
            &[
                "--http1.1",
                "-H",
                "Expect:",
                "-H",
                "Transfer-Encoding: chunked",
            ],
            &[
                "--http1.1",
                "-H",
                "Expect: 100-continue",
                "--expect100-timeout",
                "5",
            ],
        ];
        for way in ways {
            // curl 7.88 never sends the last chunk of an empty file.
            if size == 0 && way.contains(&"Transfer-Encoding: chunked") {
                continue;
            }
            let answer = curl(&[way, &["--fail", "-T", path]].concat(), &url);
            assert_eq!(answer, hash_of(size), "{way:?} {size}");
        }
        std::fs::remove_file(&file).unwrap();
    }
}

/// Many requests on kept connections, by programs that know nothing of us.
fn load(proxy: &Proxy, target: &str) {
    let url = format!("http://{}{target}", proxy.address());
    if let Some(wrk) = found("wrk") {
        let output = Command::new(wrk)
            .args(["-t1", "-c32", "-d1s", &url])
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(text.contains("requests in"), "{text}");
        assert!(
            !text.contains("Non-2xx") && !text.contains("Socket errors"),
            "{text}"
        );
    }
    if let Some(h2load) = found("h2load") {
        let arguments = ["--h1", "-n", "3000", "-c", "30", "-t", "1", &url];
        let output = Command::new(h2load).args(arguments).output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(
            text.contains("3000 succeeded, 0 failed, 0 errored"),
            "{text}"
        );
    }
    let opened = proxy.opened();
    assert!(
        opened <= 128.0,
        "{opened} connections for at most 32 clients at a time"
    );
}

fn heads(proxy: &Proxy, target: &str, length: u64) {
    let url = format!("http://{}{target}", proxy.address());
    for version in ["--http1.1", "--http1.0"] {
        let head = curl(&[version, "--head"], &url).to_lowercase();
        assert!(
            head.starts_with("http/1.1 200"),
            "we answer in our own version: {head}"
        );
        assert!(
            head.contains(&format!("content-length: {length}\r\n")),
            "{head}"
        );
    }
    // The second of two on one connection would hang or be garbled if the first left octets behind.
    let both = curl(&["--head", &url], &url);
    assert_eq!(both.matches("HTTP/1.1 200").count(), 2, "{both}");
}

#[test]
fn node_as_origin() {
    let (Some(node), Some(_)) = (found("node"), found("curl")) else {
        return;
    };
    let folder = folder_with_piece();
    let mut command = Command::new(node);
    command.arg(script("origin.js")).arg(folder.join("piece"));
    let origin = Program::saying_its_port(command, "listening on port", folder);
    let proxy = Proxy::to_address(origin.address);
    downloads(&proxy, &["length", "chunked", "close"]);
    uploads(&proxy, &origin.folder);
    heads(&proxy, "/length/1000", 1000);
    load(&proxy, "/length/100");
    load(&proxy, "/chunked/100");
}

#[test]
fn nginx_as_origin() {
    let (Some(nginx), Some(_)) = (found("nginx"), found("curl")) else {
        return;
    };
    let folder = folder_with_piece();
    let held = Port::held();
    let port = held.number;
    std::fs::create_dir_all(folder.join("www/length")).unwrap();
    for size in sizes() {
        let file = std::fs::File::create(folder.join(format!("www/length/{size}"))).unwrap();
        let mut writer = std::io::BufWriter::new(file);
        each_piece(size, |piece| writer.write_all(piece).unwrap());
    }
    std::fs::write(folder.join("nginx.conf"), nginx_config(&folder, port)).unwrap();
    let mut command = Command::new(nginx);
    command
        .arg("-p")
        .arg(&folder)
        .arg("-c")
        .arg(folder.join("nginx.conf"));
    command.arg("-e").arg(folder.join("error.log"));
    let origin = Program::on_port(command, port, folder);
    let proxy = Proxy::to_address(origin.address);
    downloads(&proxy, &["length"]);
    heads(&proxy, "/length/65536", 65536);
    ranges(&proxy);
    not_modified(&proxy);
    stored(&proxy, &origin.folder);
    load(&proxy, "/length/1");
}

fn nginx_config(folder: &std::path::Path, port: u16) -> String {
    let at = folder.display();
    // As root, nginx would otherwise serve as a user who may not read this folder.
    format!(
        "daemon off; master_process off; worker_processes 1; pid {at}/nginx.pid;\n\
         error_log {at}/error.log; events {{ worker_connections 1024; }}\n\
         http {{\n\
           access_log off; sendfile on; keepalive_timeout 5s; keepalive_requests 100000;\n\
           client_body_temp_path {at}/body; proxy_temp_path {at}/proxy;\n\
           fastcgi_temp_path {at}/fastcgi; uwsgi_temp_path {at}/uwsgi; scgi_temp_path {at}/scgi;\n\
           client_max_body_size 0;\n\
           server {{\n\
             listen 127.0.0.1:{port}; root {at}/www;\n\
             location /stored/ {{ dav_methods PUT DELETE; create_full_put_path on; }}\n\
           }}\n\
         }}\n"
    )
}

fn ranges(proxy: &Proxy) {
    let url = format!("http://{}/length/1048576", proxy.address());
    let mut whole = Vec::new();
    each_piece(1 << 20, |piece| whole.extend_from_slice(piece));
    for (range, expected) in [
        ("0-0", &whole[..1]),
        ("100-199", &whole[100..200]),
        ("-5", &whole[whole.len() - 5..]),
    ] {
        let got = curl_hash(&["--range", range], &url);
        assert_eq!(
            got,
            (expected.len() as u64, bodies::hash(expected)),
            "{range}"
        );
    }
    let status = curl(
        &[
            "--range",
            "9999999-",
            "-o",
            "/dev/null",
            "-w",
            "%{http_code}",
        ],
        &url,
    );
    assert_eq!(status, "416");
}

fn not_modified(proxy: &Proxy) {
    let url = format!("http://{}/length/1", proxy.address());
    let head = curl(&["--head"], &url);
    let lower = head.to_lowercase();
    let tag = lower
        .lines()
        .find_map(|line| line.strip_prefix("etag: "))
        .expect("an ETag");
    let condition = format!("If-None-Match: {tag}");
    let told = curl(
        &["-H", &condition, "-o", "/dev/null", "-w", "%{http_code}"],
        &url,
    );
    assert_eq!(told, "304");
}

/// What nginx stored is what curl sent.
fn stored(proxy: &Proxy, folder: &std::path::Path) {
    for size in [1, 65536, 1 << 20] {
        let file = folder.join("upload");
        let mut octets = Vec::new();
        each_piece(size, |piece| octets.extend_from_slice(piece));
        std::fs::write(&file, &octets).unwrap();
        for (nth, coding) in ["X-A: b", "Transfer-Encoding: chunked"].iter().enumerate() {
            let url = format!("http://{}/stored/{size}-{nth}", proxy.address());
            curl(
                &["--fail", "-H", coding, "-T", file.to_str().unwrap()],
                &url,
            );
            let got = std::fs::read(folder.join(format!("www/stored/{size}-{nth}"))).unwrap();
            assert_eq!(bodies::hash(&got), bodies::hash(&octets), "{size} {coding}");
        }
    }
}

#[test]
fn pythons_http_server_as_origin() {
    let (Some(python), Some(_)) = (python_with("http.server"), found("curl")) else {
        return;
    };
    let folder = folder_with_piece();
    std::fs::create_dir_all(folder.join("length")).unwrap();
    for size in sizes() {
        let file = std::fs::File::create(folder.join(format!("length/{size}"))).unwrap();
        let mut writer = std::io::BufWriter::new(file);
        each_piece(size, |piece| writer.write_all(piece).unwrap());
    }
    let mut command = Command::new(python);
    command.args([
        "-u",
        "-m",
        "http.server",
        "--bind",
        "127.0.0.1",
        "--directory",
    ]);
    command.arg(&folder).arg("0");
    // "Serving HTTP on 127.0.0.1 port 40123 (http://127.0.0.1:40123/) ..."
    let origin = Program::saying_its_port(command, "Serving HTTP on", folder);
    let proxy = Proxy::to_address(origin.address);
    // It answers in HTTP/1.0 and closes: each request has a connection of its own.
    downloads(&proxy, &["length"]);
    heads(&proxy, "/length/65536", 65536);
    let url = format!("http://{}/no-such-file", proxy.address());
    assert_eq!(
        curl(&["-o", "/dev/null", "-w", "%{http_code}"], &url),
        "404"
    );
}

/// The application in Python carries everything; its server says its port behind these words.
fn serves(mut command: Command, says: &str, folder: PathBuf) {
    command.env("HOLDFAST_PIECE", folder.join("piece"));
    command.env("PYTHONDONTWRITEBYTECODE", "1");
    let origin = Program::saying_its_port(command, says, folder);
    let proxy = Proxy::to_address(origin.address);
    downloads(&proxy, &["length", "chunked"]);
    uploads(&proxy, &origin.folder);
    heads(&proxy, "/length/1000", 1000);
    load(&proxy, "/length/100");
}

#[test]
fn gunicorn_as_origin() {
    let Some(_) = found("curl") else { return };
    let folder = folder_with_piece();
    let mut command = match python_with("gunicorn") {
        Some(python) => {
            let mut command = Command::new(python);
            command.args(["-m", "gunicorn"]);
            command
        }
        None => match found("gunicorn") {
            Some(gunicorn) => Command::new(gunicorn),
            None => return,
        },
    };
    command.args([
        "--bind",
        "127.0.0.1:0",
        "--worker-class",
        "gthread",
        "--threads",
        "64",
    ]);
    command
        .args(["--keep-alive", "5", "--chdir"])
        .arg(script(""))
        .arg("origin_wsgi:app");
    serves(command, "Listening at", folder);
}

#[test]
fn uvicorn_as_origin() {
    let (Some(python), Some(_)) = (python_with("uvicorn"), found("curl")) else {
        return;
    };
    let folder = folder_with_piece();
    let mut command = Command::new(python);
    command.args([
        "-m",
        "uvicorn",
        "--host",
        "127.0.0.1",
        "--port",
        "0",
        "--app-dir",
    ]);
    command
        .arg(script(""))
        .args(["--no-access-log", "origin_asgi:app"]);
    serves(command, "running on", folder);
}

#[test]
fn curl_reuses_its_connection_to_us() {
    let Some(_) = found("curl") else { return };
    let origin = crate::support::Origin::ok();
    let proxy = Proxy::to(&origin);
    let url = format!("http://{}/", proxy.address());
    let more: Vec<&str> = std::iter::repeat_n(url.as_str(), 9).collect();
    assert_eq!(curl(&more, &url), "ok".repeat(10));
    let labels = [("listener", "web")];
    assert_eq!(
        proxy.metric("holdfast_client_connections_accepted_total", &labels),
        1.0
    );
    assert_eq!(origin.connections(), 1);
}

/// Only to say where the scripts are, if they are not.
#[test]
fn the_scripts_of_the_peers_are_there() {
    let missing: Vec<PathBuf> = ["origin.js", "origin_wsgi.py", "origin_asgi.py"]
        .iter()
        .map(|name| script(name))
        .filter(|path| !path.is_file())
        .collect();
    assert!(missing.is_empty(), "{missing:?}");
}
