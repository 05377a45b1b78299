"use strict";
// Sorting, filtering, the panel of a candidate and the color scheme switch. The page is complete without any of them.
(() => {
  const root = document.documentElement;
  const button = document.getElementById("theme");
  const schemes = ["auto", "light", "dark"];
  const show = (scheme) => {
    if (scheme === "auto") root.removeAttribute("data-theme");
    else root.setAttribute("data-theme", scheme);
    button.textContent = `Color scheme: ${scheme}`;
    button.dataset.scheme = scheme;
  };
  const asked = new URLSearchParams(location.search).get("theme");
  show(schemes.includes(asked) ? asked : "auto");
  button.hidden = false;
  button.addEventListener("click", () => {
    show(schemes[(schemes.indexOf(button.dataset.scheme) + 1) % schemes.length]);
  });

  const panel = document.getElementById("panel");
  if (panel) {
    const title = document.getElementById("panel-title");
    const content = document.getElementById("panel-body");
    let opener = null;
    document.addEventListener("click", (event) => {
      const link = event.target.closest("a[href]");
      if (!link || event.button || event.ctrlKey || event.metaKey || event.shiftKey || event.altKey) return;
      const name = link.getAttribute("href").slice(1);
      const about = link.classList.contains("candidate") && document.getElementById(`about-${name}`);
      if (about) {
        event.preventDefault();
        title.textContent = `Candidate ${name}`;
        content.replaceChildren(about.content.cloneNode(true));
        if (!panel.open) {
          opener = link;
          panel.showModal();
        }
        panel.scrollTop = 0;
        title.focus();
      } else if (panel.open) {
        opener = null; // the link leads away from it
        panel.close();
      }
    });
    panel.addEventListener("close", () => opener?.focus({ preventScroll: true }));
    panel.addEventListener("click", (event) => {
      if (event.target === panel) panel.close(); // on the page behind it
    });
    document.getElementById("panel-close").addEventListener("click", () => panel.close());
  }

  const table = document.getElementById("table");
  if (!table) return;
  const body = table.tBodies[0];
  const headings = [...table.tHead.rows[0].cells];
  const key = (row, column) => {
    const cell = row.cells[column];
    return "sort" in cell.dataset ? Number(cell.dataset.sort) : cell.textContent.trim().toLowerCase();
  };
  headings.forEach((heading, column) => {
    const control = document.createElement("button");
    control.type = "button";
    control.append(...heading.childNodes);
    heading.append(control);
    control.addEventListener("click", () => {
      const numeric = heading.classList.contains("num");
      const current = heading.getAttribute("aria-sort");
      const down = current ? current === "ascending" : numeric;
      headings.forEach((other) => other.removeAttribute("aria-sort"));
      heading.setAttribute("aria-sort", down ? "descending" : "ascending");
      const rows = [...body.rows].map((row) => [key(row, column), row]);
      rows.sort(([a], [b]) => (a < b ? -1 : a > b ? 1 : 0) * (down ? -1 : 1));
      body.append(...rows.map(([, row]) => row));
    });
  });

  const filter = document.getElementById("filter");
  const count = document.getElementById("count");
  const apply = () => {
    const words = filter.value.toLowerCase().split(/\s+/).filter(Boolean);
    let visible = 0;
    for (const row of body.rows) {
      const text = row.textContent.toLowerCase();
      row.hidden = !words.every((word) => text.includes(word));
      visible += row.hidden ? 0 : 1;
    }
    count.textContent = `${visible} of ${body.rows.length} shown`;
  };
  filter.addEventListener("input", apply);
  apply();
  window.addEventListener("hashchange", () => {
    const row = document.getElementById(location.hash.slice(1));
    if (row && row.hidden) {
      filter.value = "";
      apply();
      row.scrollIntoView({ block: "center" });
    }
  });
})();
