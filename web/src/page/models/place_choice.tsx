/** Where pictures are drawn: in this browser, or on the computer whose service brought the page. */

import { isServiceModel } from "../../remote/service";
import type { Models } from "../state/models";
import type { Studio } from "../state/studio";
import { t } from "../text";
import { Segments } from "../widgets/fields";

const PLACES = ["browser", "computer"] as const;
type Place = (typeof PLACES)[number];

export function PlaceChoice({ studio, models }: { studio: Studio; models: Models }) {
  const { current, list } = models;
  const placeOf = (url: string): Place => (isServiceModel(url) ? "computer" : "browser");
  const places = PLACES.filter((place) => list.value.some(({ url }) => placeOf(url) === place));
  if (current.value === undefined || places.length < 2 || studio.running.value !== undefined) return null;
  const { name } = current.value;
  const choose = (place: Place) => {
    const there = list.peek().filter(({ url }) => placeOf(url) === place);
    models.choose(there.find((model) => model.name === name) ?? there[0]);
  };
  return (
    <Segments<Place>
      label={t.value.place}
      options={places}
      text={(place) => t.value.places[place]}
      value={placeOf(current.value.url)}
      onChange={choose}
      help={t.value.placeHelp[placeOf(current.value.url)]}
    />
  );
}
