/** How many columns the window has room for. */

import { signal } from "@preact/signals";

const narrow = matchMedia("(max-width: 46rem)"); // as styles/layout.css has it

/** Whether all parts of the page stand in one column. */
export const isOneColumn = signal(narrow.matches);

narrow.addEventListener("change", () => {
  isOneColumn.value = narrow.matches;
});
