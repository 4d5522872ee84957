// A sum written out: a line for each part, the total, what the package computed, and all terms in a table.

import { fixed, h, tableHead } from "./dom.js";

/** A sum: update({ lines, total, value }) writes it; lines are [name, number, class], value is the package's number. */
export class Sum {
  constructor() {
    this.body = h("tbody");
    this.name = h("th", { scope: "row" });
    this.total = h("td");
    this.value = h("output", { class: "value" });
    this.element = h(
      "div",
      { class: "sum" },
      h("table", { class: "numbers" }, this.body, h("tfoot", {}, h("tr", {}, this.name, this.total))),
      h("p", { class: "caption" }, "The package computed ", this.value),
    );
  }

  update({ lines, name = "total", total, value }) {
    this.body.replaceChildren(
      ...lines.map(([name, number, role]) => h("tr", { class: role }, h("th", { scope: "row" }, name), h("td", {}, fixed(number)))),
    );
    this.name.textContent = name;
    this.total.textContent = fixed(total);
    this.element.dataset.total = total;
    this.value.textContent = fixed(value, 6);
    this.value.dataset.value = value;
  }
}

/** All terms of a sum, in a table that is made when it is opened: cells(row) are the texts of a row, point(row) follows the pointer. */
export class Terms {
  constructor({ count, heads, cells, point }) {
    Object.assign(this, { count, cells, point, rows: null });
    this.body = h("tbody");
    this.element = h(
      "details",
      { class: "terms", ontoggle: () => this.update() },
      h("summary", {}, `All ${count} terms`),
      h(
        "div",
        { class: "scrolled", tabindex: "0", role: "group", "aria-label": "All terms" },
        h(
          "table",
          { class: "numbers" },
          tableHead(heads),
          this.body,
        ),
      ),
    );
  }

  /** Write the numbers again, and mark a row. */
  update(marked = this.marked) {
    this.marked = marked;
    if (!this.element.open) return;
    if (!this.rows) {
      this.rows = Array.from({ length: this.count }, (_, r) =>
        h(
          "tr",
          { "data-row": r, onpointerenter: () => this.point(r) },
          this.cells(r).map(() => h("td")),
        ),
      );
      this.body.append(...this.rows);
    }
    this.rows.forEach((row, r) => {
      this.cells(r).forEach((text, k) => (row.children[k].textContent = text));
      row.classList.toggle("marked", r === marked);
    });
  }
}
