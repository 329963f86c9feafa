//! `unstuck status --html` in a real browser, at two widths, light and dark: judged by what the browser computes.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test says what went wrong by failing there")]

#[path = "support/scene.rs"]
mod scene;

use std::fs;
use std::path::Path;
use std::process::Command;

use scene::Scene;
use serde_json::{Value, json};

/// Shows the page in four frames and measures each. A frame has the colour scheme of its element.
const HARNESS: &str = r#"<!DOCTYPE html><meta charset="utf-8"><body><script>
const seen = [];
let left = 4;
for (const scheme of ["light", "dark"]) for (const width of [400, 1280]) {
  const frame = document.createElement("iframe");
  frame.style = `color-scheme: ${scheme}; border: 0; width: ${width}px; height: 900px`;
  frame.src = "status.html";
  frame.onload = () => {
    const page = frame.contentDocument, root = page.documentElement;
    const all = (what) => [...page.querySelectorAll(what)];
    const box = (e) => e.getBoundingClientRect();
    const texts = all("h1, h2, p, strong, .mark, .facts, .migrations li, text, footer").filter((e) => e.textContent);
    const apart = (a, b) => a.right <= b.left + 1 || b.right <= a.left + 1 || a.bottom <= b.top + 1 || b.bottom <= a.top + 1;
    const clash = [], cut = [];
    texts.forEach((a, i) => {
      if (a.scrollWidth > a.clientWidth + 1 && !a.closest("svg")) cut.push(a.textContent);
      if (box(a).left < -1 || box(a).right > width + 1) cut.push(a.textContent);
      for (const b of texts.slice(i + 1)) if (!apart(box(a), box(b))) clash.push([a.textContent, b.textContent]);
    });
    const centre = (e) => box(e).left + box(e).width / 2;
    seen.push({
      scheme, width, clash, cut,
      overflow: root.scrollWidth - root.clientWidth,
      background: frame.contentWindow.getComputedStyle(page.body).backgroundColor,
      scripts: page.scripts.length, images: page.images.length,
      dynos: all(".dynos li").map((row) => ({
        name: row.querySelector("strong").textContent, mark: row.querySelector(".mark").textContent,
        life: box(row.querySelector(".life") ?? row.querySelector(".end")).width,
        before: centre(row.querySelector(".boot")) < centre(row.querySelector(".change")) - 1,
      })),
      text: page.body.textContent,
    });
    if (--left === 0) document.body.innerHTML = "<pre id=seen></pre>", document.querySelector("pre").textContent = JSON.stringify(seen);
  };
  document.body.append(frame);
}
</script>"#;

/// What the browser makes of the page in this folder.
fn measured(folder: &Path) -> Vec<Value> {
    fs::write(folder.join("harness.html"), HARNESS).unwrap();
    let output = Command::new("chromium")
        .args([
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--allow-file-access-from-files",
        ])
        .args(["--virtual-time-budget=10000", "--window-size=1300,1000", "--dump-dom"])
        .arg(format!("--user-data-dir={}", folder.join("profile").display()))
        .arg(format!("file://{}", folder.join("harness.html").display()))
        .env("HOME", folder)
        .output()
        .unwrap_or_else(|error| panic!("chromium is needed (apt-get install chromium): {error}"));
    let dom = String::from_utf8(output.stdout).unwrap();
    let text = dom.split_once("<pre id=\"seen\">").and_then(|(_, rest)| rest.split_once("</pre>"));
    let text = text.unwrap_or_else(|| panic!("{dom}\n{}", String::from_utf8_lossy(&output.stderr))).0;
    let text = text.replace("&lt;", "<").replace("&gt;", ">").replace("&nbsp;", "\u{a0}").replace("&amp;", "&");
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

#[test]
fn the_page_looks_right_at_two_widths_in_light_and_dark() {
    let scene = Scene::new();
    scene.settled();
    scene.migration(20_130_125_163_307, "add_title_to_posts", "sql 'create table posts (title)'");
    scene.unstuck(&["migrate"]).code(0);
    scene.migration(20_260_101_000_000, &format!("add_{}", "a_very_long_name_".repeat(9)), "true");
    // Whoever made a record, it is text from outside. It is of the future: all dynos began earlier, as a clock tells it.
    let hostile = r"<script>document.title=1</script><img src=x onerror=alert(1)>";
    let note = json!({"v": 1, "ph": "D", "ep": "other", "from": "0", "n": 1, "tag": "0", "by": hostile});
    let key = format!("unstuck:debt:{}:0123456789abcdef", scene.standin.app_id());
    scene.sql(&format!("insert into ar_internal_metadata values ('{key}', '{note}', datetime('now', '1 hour'), datetime('now', '1 hour'))"));
    assert!(scene.standin.crash("web.2"));
    scene.unstuck(&["status", "--html", "status.html"]).code(0);
    let html = fs::read_to_string(scene.path("status.html")).unwrap();
    assert!(html.contains("default-src 'none'") && !html.contains("unsafe-inline"), "{html}");
    let seen = measured(scene.root.path());
    assert_eq!(seen.len(), 4);
    for page in &seen {
        let what = format!("{} at {}", page["scheme"], page["width"]);
        assert_eq!(page["overflow"], 0, "{what}");
        assert_eq!(page["clash"], json!([]), "{what}");
        assert_eq!(page["cut"], json!([]), "{what}");
        assert_eq!((&page["scripts"], &page["images"]), (&json!(0), &json!(0)), "{what}");
        assert!(page["text"].as_str().unwrap().contains(hostile), "shown as text: {page}");
        let dynos = page["dynos"].as_array().unwrap();
        let marks: Vec<_> = dynos.iter().map(|dyno| (dyno["name"].as_str(), dyno["mark"].as_str())).collect();
        let stuck = Some("STUCK");
        assert_eq!(marks, [(Some("web.1"), stuck), (Some("web.2"), stuck), (Some("worker.1"), stuck)], "{what}");
        assert!(dynos.iter().all(|dyno| dyno["life"].as_f64() > Some(0.0)), "{page}");
        assert!(dynos.iter().all(|dyno| dyno["before"] == true), "{page}");
        // The style is the page's own, so its hash fits; and it follows the scheme.
        let background = if page["scheme"] == "light" { "rgb(246, 247, 249)" } else { "rgb(18, 22, 28)" };
        assert_eq!(page["background"], background, "{what}");
    }
}
