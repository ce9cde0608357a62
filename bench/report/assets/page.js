"use strict";
// Tables that sort, lists of tables to choose from, light and dark, and all sections open on paper.
(() => {
  const NUMBER = /^[≤<]?\s*([-−]?[\d,]*\.?\d+(?:e[-+]?\d+)?)(?=$|[\s%†])/;

  function element(name, attributes = {}, ...children) {
    const made = document.createElement(name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    made.append(...children);
    return made;
  }

  function valueOf(text) {
    const match = NUMBER.exec(text);
    return match ? Number(match[1].replaceAll(",", "").replace("−", "-")) : null;
  }

  // Rows by a column; what has no value ("–") comes last either way.
  function sort(table, column, ascending) {
    const body = table.tBodies[0];
    const rows = [...body.rows].map((row) => ({ row, text: row.cells[column].textContent.trim() }));
    const known = rows.filter((r) => r.text !== "–" && r.text !== "");
    const numeric = known.every((r) => valueOf(r.text) !== null);
    const compare = numeric
      ? (a, b) => valueOf(a.text) - valueOf(b.text)
      : (a, b) => a.text.localeCompare(b.text, "en", { numeric: true });
    known.sort((a, b) => (ascending ? compare(a, b) : compare(b, a)));
    const unknown = rows.filter((r) => !known.includes(r));
    body.append(...[...known, ...unknown].map((r) => r.row));
  }

  for (const table of document.querySelectorAll("table.sortable")) {
    [...table.tHead.rows[0].cells].forEach((head, column) => {
      if (!head.textContent.trim()) return;
      const higherIsBetter = head.textContent.includes("↑");
      const button = element("button", { type: "button", title: "Sort by this column" }, ...head.childNodes);
      button.addEventListener("click", () => {
        const before = head.getAttribute("aria-sort");
        const ascending = before ? before === "descending" : !higherIsBetter;
        for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
        head.setAttribute("aria-sort", ascending ? "ascending" : "descending");
        sort(table, column, ascending);
      });
      head.replaceChildren(button);
    });
  }

  for (const choice of document.querySelectorAll(".choice")) {
    const list = choice.querySelector("select");
    const show = () => {
      for (const part of choice.querySelectorAll("[data-choice]")) part.hidden = part.dataset.choice !== list.value;
    };
    list.addEventListener("change", show);
    show(); // a browser may remember what was chosen before
  }

  const root = document.documentElement;
  const dark = () => getComputedStyle(root).colorScheme === "dark" ||
    (root.style.colorScheme === "" && matchMedia("(prefers-color-scheme: dark)").matches);
  const theme = element("button", { type: "button", id: "theme" });
  const name = () => { theme.textContent = dark() ? "Light" : "Dark"; };
  theme.addEventListener("click", () => {
    root.style.colorScheme = dark() ? "light" : "dark";
    name();
  });
  name();

  const sections = [...document.querySelectorAll("details.section")];
  const folding = element("button", { type: "button", id: "fold" }, "Fold all");
  folding.addEventListener("click", () => {
    const open = !sections.some((section) => section.open);
    for (const section of sections) section.open = open;
    folding.textContent = open ? "Fold all" : "Unfold all";
  });
  document.getElementById("tools").append(...(sections.length ? [folding] : []), theme);

  // A link to a section that is folded opens it.
  const openTarget = () => {
    const target = document.getElementById(decodeURIComponent(location.hash.slice(1)));
    if (target instanceof HTMLDetailsElement) target.open = true;
  };
  addEventListener("hashchange", openTarget);
  openTarget();

  let folded = [];
  addEventListener("beforeprint", () => {
    folded = [...document.querySelectorAll("details:not([open])")];
    for (const part of folded) part.open = true;
  });
  addEventListener("afterprint", () => {
    for (const part of folded) part.open = false;
  });
})();
