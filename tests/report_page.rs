//! `simclr report` through the program, and what a real browser makes of the page.

mod binary;
mod pictures;

use binary::{refused, run, simclr, stderr, tiny};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;

/// A folder with a short run (`first`), another one (`second`), and the pages of one and of both.
fn home() -> &'static Path {
    static HOME: OnceLock<tempfile::TempDir> = OnceLock::new();
    HOME.get_or_init(|| {
        let home = tempfile::tempdir().expect("a folder");
        for (name, seed) in [("first", "runtime.seed=1"), ("second", "runtime.seed=2")] {
            let more = ["train_steps=12", "train_summary_steps=2", seed];
            let output = run(&tiny(&home.path().join(name), &more));
            assert!(output.status.success(), "{}", stderr(&output));
        }
        for arguments in [
            &["report", "first", "-o", "one.html"][..],
            &[
                "report",
                "first",
                "second",
                "-o",
                "both.html",
                "--curves-only",
            ],
        ] {
            let output = call(home.path(), arguments);
            assert!(output.status.success(), "{}", stderr(&output));
        }
        home
    })
    .path()
}

fn call(folder: &Path, arguments: &[&str]) -> Output {
    let mut command = simclr();
    command.current_dir(folder).args(arguments);
    command.output().expect("the program starts")
}

#[test]
fn the_page_holds_curves_pictures_and_map_and_needs_nothing_else() {
    let one = std::fs::read_to_string(home().join("one.html")).expect("a page");
    for (what, least) in [
        ("<h3>Contrastive loss</h3><svg", 1),
        ("<h3>Learning rate</h3><svg", 1),
        ("<img class=\"views\"", 1),
        ("<img class=\"query\"", 8),
        ("<circle", 1000),
        ("prefers-color-scheme:dark", 1),
        ("name=\"viewport\"", 1),
    ] {
        let found = one.matches(what).count();
        assert!(found >= least, "{what}: {found}, expected {least}");
    }
    let neighbours =
        one.matches("<img class=\"same\"").count() + one.matches("<img class=\"other\"").count();
    assert_eq!(neighbours, 64, "8 rows of 8 neighbours");
    for outside in ["http://", "https://", "src=\"/", "<script", "<link"] {
        assert!(!one.contains(outside), "the page asks for {outside}");
    }
    let both = std::fs::read_to_string(home().join("both.html")).expect("a page");
    assert!(both.contains("<title>2 runs</title>") && !both.contains("<img"));
    let loss = both
        .split("<h3>Contrastive loss</h3>")
        .nth(1)
        .expect("a chart");
    let loss = &loss[..loss.find("</svg>").expect("an end")];
    assert_eq!(loss.matches("<path").count(), 2, "a curve for each run");
    // What both have alike, and what they do not; what is at its default is not there.
    let settings = both.split("<h2>Settings</h2>").nth(1).expect("settings");
    assert!(settings.contains("<td>runtime.seed</td><td><b>1</b></td><td><b>2</b></td>"));
    assert!(
        settings.contains("<td>train_steps</td><td>12</td><td>12</td>"),
        "{settings}"
    );
    assert!(!settings.contains("sk_ratio"), "{settings}");
}

/// Runs whose folders have one name are told apart.
#[test]
fn runs_of_one_name_are_called_by_their_paths() {
    let other = home().join("other");
    std::fs::create_dir_all(&other).expect("a folder");
    std::os::unix::fs::symlink(home().join("first"), other.join("first")).expect("a link");
    let runs = [
        "report",
        "first",
        "other/first",
        "-o",
        "same.html",
        "--curves-only",
    ];
    let output = call(home(), &runs);
    assert!(output.status.success(), "{}", stderr(&output));
    let page = std::fs::read_to_string(home().join("same.html")).expect("a page");
    assert!(page.contains("<b>first</b>") && page.contains("<b>other/first</b>"));
}

/// A set that is streamed has neighbours and a map too, and what `simclr run` finds about checkpoints is on the page.
#[test]
fn a_streamed_run_with_evaluations_has_all_of_the_page() {
    let home = tempfile::tempdir().expect("a folder");
    let images = home.path().join("images");
    for (split, count) in [("train", 24), ("test", 12)] {
        for number in 0..count {
            let class = images.join(split).join(["round", "square"][number % 2]);
            std::fs::create_dir_all(&class).expect("a folder");
            std::fs::write(class.join(format!("{number}.jpg")), pictures::jpeg(number))
                .expect("a file");
        }
    }
    let mut arguments = tiny(
        &home.path().join("run"),
        &[
            "mode=train_then_eval",
            "dataset=folder",
            "image_size=100",
            "stem_stride=1",
            "train_batch_size=8",
            "train_steps=3",
            "train_summary_steps=1",
        ],
    );
    arguments[0] = "run".into();
    arguments.push(format!("data_dir={}", images.display()));
    let output = run(&arguments);
    assert!(output.status.success(), "{}", stderr(&output));
    let output = call(home.path(), &["report", "run", "-o", "x.html"]);
    assert!(output.status.success(), "{}", stderr(&output));
    let page = std::fs::read_to_string(home.path().join("x.html")).expect("a page");
    assert_eq!(page.matches("<img class=\"query\"").count(), 8);
    assert!(page.matches("<circle").count() >= 12);
    for class in ["round", "square"] {
        let title = format!("title=\"{class}\"");
        assert!(page.contains(&title), "{title}");
    }
    // 100 pixels are shown as the means of two by two.
    assert!(page.contains("width=\"50\" height=\"50\""));
    assert!(page.contains("<td>top-1</td>"), "{page:.3000}");

    // Without what it is evaluated on, and then without anything.
    std::fs::remove_dir_all(images.join("test")).expect("removed");
    let output = call(home.path(), &["report", "run", "-o", "x.html"]);
    let text = stderr(&output);
    assert!(output.status.success(), "{text}");
    assert!(
        text.contains("run: neighbours and map are left out: "),
        "{text}"
    );
    let moved = home.path().join("moved");
    std::fs::rename(&images, &moved).expect("moved");
    let output = call(home.path(), &["report", "run", "-o", "x.html"]);
    let words = ["`run`: ", "images", "--set data_dir=DIR", "--curves-only"];
    refused(&output, 2, &words);
    let text = stderr(&output);
    let hints = text.matches("--curves-only").count();
    assert!(hints == 1 && !text.contains("cause:"), "{text}");
    for more in ["--curves-only", "--set=data_dir=moved"] {
        let output = call(home.path(), &["report", "run", "-o", "x.html", more]);
        assert!(output.status.success(), "{more}: {}", stderr(&output));
    }
}

#[test]
fn bad_input_is_refused_in_a_sentence() {
    let foreign = home().join("foreign");
    std::fs::create_dir_all(&foreign).expect("a folder");
    for (arguments, code, words) in [
        (
            &["report", "foreign", "-o", "x.html"][..],
            2,
            "has no `metrics.jsonl`, expected a run folder",
        ),
        (
            &["report", "first", "-o", "foreign"],
            3,
            "give the name of a file",
        ),
        (
            &["report", "first", "-o", "first/metrics.jsonl"],
            2,
            "cannot write `first/metrics.jsonl`: its name must end in .html or .htm",
        ),
        (
            &[
                "report",
                "first",
                "-o",
                "first/checkpoints/step-00000012/x.html",
            ],
            2,
            "is a checkpoint; choose another path",
        ),
        (
            &["report", "first", "-o", "none/x.html"],
            3,
            "cannot write `none/x.html`",
        ),
    ] {
        let output = call(home(), arguments);
        let text = stderr(&output);
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {text}");
        assert!(text.contains(words), "{arguments:?}: {text}");
        assert!(!home().join("x.html").exists());
    }
}

/// The browser, said loudly where there is none.
fn browser() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path)
        .flat_map(|folder| {
            ["chromium", "chromium-browser", "google-chrome"].map(|name| folder.join(name))
        })
        .find(|file| file.is_file());
    if found.is_none() {
        eprintln!("SKIPPED: no chromium on the PATH (apt-get install chromium)");
    }
    found
}

/// Pixels of the page in a window of this width: `(width, RGB bytes)`.
fn screenshot(browser: &Path, page: &str, width: usize, dark: bool) -> (usize, Vec<u8>) {
    let home = home();
    let shot = home.join(format!("{page}.{width}.{dark}.png"));
    let output = Command::new(browser)
        .args([
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--hide-scrollbars",
        ])
        .arg(format!(
            "--user-data-dir={}",
            home.join(format!("profile{width}{dark}")).display()
        ))
        .arg(format!(
            "--blink-settings=preferredColorScheme={}",
            if dark { 0 } else { 1 }
        ))
        .arg(format!("--window-size={width},7000"))
        .arg(format!("--screenshot={}", shot.display()))
        .arg(format!("file://{}", home.join(page).display()))
        .output()
        .expect("the browser starts");
    assert!(
        shot.is_file(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let file = std::io::BufReader::new(std::fs::File::open(shot).expect("a file"));
    let mut reader = png::Decoder::new(file).read_info().expect("a PNG");
    let mut pixels = vec![0; reader.output_buffer_size().expect("a size")];
    let info = reader.next_frame(&mut pixels).expect("pixels");
    let bytes = info.color_type.samples();
    let rgb = pixels[..info.buffer_size()]
        .chunks_exact(bytes)
        .flat_map(|p| [p[0], p[1], p[2]]);
    (info.width as usize, rgb.collect())
}

/// Curves and pictures are on the screen, on a desk and on a phone, light and dark.
#[test]
fn a_browser_shows_curves_and_pictures() {
    let Some(browser) = browser() else { return };
    for (page, width, dark) in [
        ("one.html", 1200, false),
        ("one.html", 1200, true),
        ("one.html", 390, false),
        ("one.html", 390, true),
        ("both.html", 390, true),
    ] {
        let (wide, pixels) = screenshot(&browser, page, width, dark);
        let count =
            |near: &dyn Fn(&[u8]) -> bool| pixels.chunks_exact(3).filter(|p| near(p)).count();
        let like =
            |colour: [u8; 3]| move |p: &[u8]| p.iter().zip(colour).all(|(a, b)| a.abs_diff(b) < 24);
        // Curves have the first run's colour, neighbours are framed green or red.
        let curves = count(&like([0x2f, 0x7f, 0xd6]));
        let frames = count(&like([0x2e, 0x9e, 0x5b])) + count(&like([0xd1, 0x48, 0x3f]));
        let back = count(&like(if dark { [0x0f, 0x13, 0x17] } else { [255; 3] }));
        let what = format!(
            "{page} {width} {dark}: {wide} wide, {curves} of curves, {frames} of frames, {back} of background"
        );
        assert!(curves > 800, "{what}");
        if page == "one.html" {
            assert!(frames > 2000, "{what}");
        } else {
            let second = count(&like([0xe0, 0x76, 0x2a]));
            assert!(second > 800, "{what}, {second} of the second run");
        }
        assert!(back > pixels.len() / 3 / 4, "{what}");
    }
}
